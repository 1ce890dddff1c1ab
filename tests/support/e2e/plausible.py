"""Topics as the jobs would fill them, without the jobs: records that fit together, past ones and ones that flow."""

import json
import threading
import time
from base64 import b64encode
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from itertools import count, cycle, islice
from pathlib import Path

import numpy as np
from kafka import KafkaProducer
from kafka.errors import KafkaError

from jobs.common.settings import Settings
from training.data.sources import profile_records
from training.retraining.run_store import Gate, RampRecord, Run, Window, run_name, write_run
from training.rollout.ledger import append, next_entry, upload_bundle
from training.simulation.clickstream import Simulation, simulate
from udfs.contracts.clicks import ClickDecoder, ClickLimits
from udfs.contracts.outputs import BOT
from udfs.contracts.packed_events import EVENT
from udfs.contracts.profiles import ProfileDecoder
from udfs.measurement.kpis import Kpi
from udfs.models.bundle import directory_files
from udfs.rollout.plan import Challenger, Control, Rollout
from udfs.rollout.registry import Registry
from udfs.rollout.rules import Rule
from udfs.serving.deployment import Deployment, Options, load_model

MINUTE = 60_000
HISTORY_BYTES = 64 * EVENT.itemsize
RATE, BATCH = 200, 40
BROKEN = '{{"user_id": "<script>alert(1)</script>", "event_name": {name}, "event_time": "yesterday"}}'
USUAL = {
    "click_through_rate": (0.06, 900),
    "engagement_rate": (0.11, 400),
    "conversion_rate": (0.045, 600),
    "bounce_rate": (0.34, 600),
    "revenue_per_session": (3.1, 600),
    "add_to_cart_rate": (0.14, 600),
    "abandonment_rate": (0.66, 90),
    "form_completion_rate": (0.55, 60),
    "session_duration_s": (212, 600),
}
ARMS = {"champion": (0.65, 1.0), "challenger": (0.25, 1.06), "control": (0.1, 0.93)}
BOTS = 0.03  # of the sessions
#: The challenger of the experiment before: its version, and the number of looks at it.
EARLIER_CHALLENGER, EARLIER_LOOKS = "20261108T060000Z-5d02ef41", 20
DRIFTS = ("since_search_s", "value_viewed_30m", "device")  # features that drift


def rollout(champion: str, challenger: str | None = None, share: float = 0.0) -> Rollout:
    rule = Rule(any=("cart_adds_30m >= 1", "checkouts_30m >= 1"))
    if challenger is None:
        return Rollout(salt="shop", champion=champion, control=Control(share=0.1, at_most=0.1), rule=rule)
    challengers = (Challenger(version=challenger, share=share, at_most=0.5, start=0.1),)
    return Rollout(
        salt="shop", champion=champion, control=Control(share=0.1, at_most=0.1), challengers=challengers, rule=rule
    )


def fill_registry(uri: Path, champion: Path, challenger: Path) -> Registry:
    """A registry with two models, a ledger of three entries and two retraining runs."""
    uri.mkdir(parents=True, exist_ok=True)
    registry = Registry(str(uri))
    for directory in (champion, challenger):
        upload_bundle(registry, directory_files(directory))
    first, second = champion.name, challenger.name
    for made, command, why in (
        (rollout(first), f"start {first} --champion", "the first model"),
        (rollout(first, second, 0.05), f"start {second} --at-most 0.5 --share 0.05", "better on the newest week"),
        (rollout(first, second, 0.25), f"ramp {second}", "guardrails held at 5 %"),
    ):
        append(registry, next_entry(registry), made, by="ada@shop", command=command.split(), why=why)
    began = datetime.now(UTC) - timedelta(hours=7)
    auc = Gate("auc", "at least the champion's lower end", "0.861", True)
    for number, (state, trigger, passed) in enumerate((("failed", "schedule", False), ("passed", "drift alarm", True))):
        at = began + timedelta(hours=3 * number)
        at_ms = round(at.timestamp() * 1000)
        calibration = Gate("calibration", "within 10 % of the positive rate", "4 %" if passed else "17 %", passed)
        run = Run(
            run=run_name(at),
            started=at,
            trigger=trigger,
            state=state,
            window=Window(context=at_ms - 4, start=at_ms - 3, newest=at_ms - 2, matured=at_ms - 1, end=at_ms),
            settings="",
            gates=(auc, calibration),
            version=second if passed else None,
            champion=first,
            ledger_entry=2 if passed else None,
            message=f"{second} is in shadow by entry 2" if passed else "gates failed: calibration",
            finished=at + timedelta(minutes=4),
            decisions=(RampRecord(at, "start", "its AUC in shadow is no worse", 2),) if passed else (),
        )
        write_run(registry, run)
    return registry


class PlausibleShop(threading.Thread):
    """Fills the past of the topics at once; then lets clicks, scores and all the rest flow until `stop`."""

    def __init__(self, settings: Settings, kpis: dict[str, Kpi], users: int = 150, seed: int = 4):
        super().__init__(daemon=True)
        self._topics, self._kpis = settings.topics, kpis
        self._random = np.random.default_rng(seed)
        self._enough = threading.Event()
        registry = Registry(settings.model.registry)
        self._rollout = registry.rollout()[1]
        bundles = {version: registry.bundle(version) for version in self._rollout.versions}
        models = {version: load_model(bundle, Options(), True) for version, bundle in bundles.items()}
        self._deployment = Deployment(self._rollout, models, Options(threshold=settings.model.threshold))
        self._reference = json.loads(
            registry.files.cat_file(registry.path("bundles", self._rollout.champion, "reference.json"))
        )
        self._servers = settings.kafka["bootstrap.servers"]
        now = datetime.now(UTC).replace(microsecond=0)
        self._stream = simulate(Simulation(users, 6, seed, now - timedelta(hours=6)))
        self._numbers = count()  # of clicks
        self._history: dict[str, bytes] = defaultdict(bytes)
        self._seen: dict[str, list[int]] = {}  # events, and the time of the first
        self._profiles: dict[str, bytes] = {}
        self.alarm = threading.Event()  # lets the next window of drift raise one
        self.newest_user = ""

    def stop(self) -> None:
        self._enough.set()
        self.join()

    def run(self) -> None:
        clicks = list(self._stream.clicks())
        cut = len(clicks) * 7 // 10
        flowing, told = cycle(clicks[cut:]), 0.0
        while not self._enough.is_set():
            began = time.monotonic()
            now = _now_ms()
            some = [click | {"event_time": now} for click in islice(flowing, BATCH)]
            try:
                self._clicks(some, [now] * len(some), now + 25)
                self._reject(now)
                if began - told > 2:
                    told = began
                    self._minute(now)
            except KafkaError:  # the broker is away: what would flow meanwhile is lost
                pass
            self._enough.wait(max(0.0, BATCH / RATE - (time.monotonic() - began)))
        self._producer.close(timeout=2)

    def fill(self) -> None:
        """What has been in the topics for some hours."""
        self._producer = KafkaProducer(
            bootstrap_servers=self._servers, linger_ms=5, max_block_ms=2_000, reconnect_backoff_max_ms=500
        )
        profiles = list(profile_records(self._stream.profiles))
        decoded = ProfileDecoder().decode([key for key, _, _ in profiles], [value for _, value, _ in profiles])
        self._profiles = dict(zip(decoded.user_ids, decoded.profiles))
        long_ago = _now_ms() - 7 * 3_600_000
        for key, value, _ in profiles:
            self._producer.send(self._topics.profiles, value, key, timestamp_ms=long_ago)
        clicks = list(self._stream.clicks())
        clicks = clicks[: len(clicks) * 7 // 10]
        for start in range(0, len(clicks), 500):
            some = clicks[start : start + 500]
            times_ms = [click["event_time"] for click in some]
            self._clicks(some, times_ms, max(times_ms) + 40)
        now = _now_ms() // MINUTE * MINUTE
        for minute in range(now - 170 * MINUTE, now, MINUTE):
            self._kpi_minute(minute)
            self._quality_minute(minute - 30 * MINUTE)
            self._experiment(minute, (minute - now) // MINUTE + 171)
        for step in range(100):
            self._drift(now - (100 - step) * 2 * MINUTE, max(0.0, (step - 80) / 20) * 0.17)
        for _ in range(12):
            self._reject(now)
        self._producer.flush()

    def _clicks(self, clicks: list[dict], times_ms: list[int], scored_at: int) -> None:
        """Send clicks and, as the job would, their scores."""
        clicks = [click | {"event_id": f"e{next(self._numbers)}"} for click in clicks]  # the stream begins again
        payloads = [json.dumps(click).encode() for click in clicks]
        decoded = ClickDecoder(ClickLimits()).decode(payloads, times_ms)
        sent = [
            self._producer.send(self._topics.clicks, payload, click["user_id"].encode(), timestamp_ms=time_ms)
            for click, payload, time_ms in zip(clicks, payloads, times_ms)
        ]
        histories, counts, first = [], [], []
        for user, event, time_ms in zip(decoded.user_ids, decoded.events, decoded.event_times_ms):
            self._history[user] = (self._history[user] + event)[-HISTORY_BYTES:]
            seen = self._seen.setdefault(user, [0, time_ms])
            seen[0], seen[1] = seen[0] + 1, min(seen[1], time_ms)
            histories.append(self._history[user])
            counts.append(seen[0])
            first.append(seen[1])
        profiles = [self._profiles.get(user) for user in decoded.user_ids]
        scored = self._deployment.score(decoded.user_ids, histories, np.array(counts), np.array(first), profiles)
        for at, (click, future) in enumerate(zip(clicks, sent)):
            place = future.get(timeout=2)
            score = {
                "user_id": click["user_id"],
                "event_id": click.get("event_id"),
                "event_name": click["event_name"],
                "event_time": click["event_time"],
                "score": float(scored.score[at]),
                "decision": bool(scored.decision[at]),
                "arm": str(self._deployment.arm_names[scored.arm[at]]),
                "model_version": str(scored.version[at]),
                "propensity": self._deployment.propensity(int(scored.arm[at]), scored.version[at]),
                "scored_at": scored_at + int(self._random.gamma(6, 8)),
                "source_partition": place.partition,
                "source_offset": place.offset,
            }
            self._send("scores", score, click["user_id"], times_ms[at] + 60)
            if click["event_name"] != "purchase":
                label = bool(self._random.random() < score["score"] * 0.95)
                outcome = score | {"label": label, "evaluated": True, "matured_at": click["event_time"] + 30 * MINUTE}
                self._send("outcomes", outcome, click["user_id"])
        self.newest_user = clicks[-1]["user_id"]

    def _reject(self, now: int) -> None:
        if self._random.random() > 0.35:
            return
        original = BROKEN.format(name="7" if self._random.random() < 0.3 else '"page_view"').encode()
        reason, message = ("wrong_type", "Expected `int`, got `str` - at `$.event_time`")
        if self._random.random() < 0.4:
            original, reason, message = b'{"user_id": "u1", "event_na', "invalid_json", "Input data was truncated"
        letter = {
            "topic": self._topics.clicks,
            "partition": 1,
            "offset": int(self._random.integers(10**6)),
            "timestamp": datetime.fromtimestamp(now / 1000, UTC).isoformat().replace("+00:00", "Z"),
            "reason": reason,
            "message": message,
            "original": b64encode(original).decode(),
        }
        self._send("dead_letters", letter, None, now)

    def _minute(self, now: int) -> None:
        """What the jobs that measure say every minute, here more often."""
        minute = now // MINUTE * MINUTE
        self._kpi_minute(minute)
        self._quality_minute(minute - 30 * MINUTE)
        self._experiment(now, 171)
        self._drift(now, 0.55 if self.alarm.is_set() else 0.17)

    def _kpi_minute(self, minute: int) -> None:
        wave = 1 + 0.12 * np.sin(minute / (70 * MINUTE))
        for arm, (share, factor) in ARMS.items():
            for name in self._kpis:
                value, sessions = USUAL[name]
                denominator = max(1, self._random.poisson(sessions * share))
                up = self._kpis[name].direction == "up"
                mean = value * wave * (factor if up else 1 / factor)
                is_sum = name in ("revenue_per_session", "session_duration_s")
                if is_sum:
                    numerator = float(self._random.gamma(denominator / 4, 4 * mean))
                else:
                    numerator = int(self._random.binomial(denominator, min(0.95, mean)))
                self._kpi(minute, arm, None, name, numerator, denominator)
            for placement, factor in (("home_hero", 1.3), ("product_below", 0.8), ("cart_side", 0.6)):
                shown = max(1, self._random.poisson(300 * share))
                clicked = int(self._random.binomial(shown, 0.06 * factor))
                self._kpi(minute, arm, placement, "click_through_rate", clicked, shown)
        for name in self._kpis:
            self._kpi(minute, BOT, None, name, 0, max(1, self._random.poisson(USUAL[name][1] * BOTS)))

    def _kpi(self, minute: int, arm: str, placement: str | None, kpi: str, numerator: float, denominator: int) -> None:
        record = {
            "window": "minute",
            "window_start": minute,
            "arm": arm,
            "placement": placement,
            "kpi": kpi,
            "numerator": numerator,
            "denominator": denominator,
            "value": numerator / denominator,
        }
        self._send("kpis", record)

    def _quality_minute(self, minute: int) -> None:
        versions = {"champion": self._rollout.champion, "challenger": self._rollout.challengers[0].version}
        for arm, version in versions.items():
            rate = 0.05 * (1 + 0.1 * np.sin(minute / (50 * MINUTE)))
            record = {
                "event_minute": minute,
                "model_version": version,
                "arm": arm,
                "scores": int(self._random.poisson(900 if arm == "champion" else 350)),
                "roc_auc": float(np.clip(self._random.normal(0.84 if arm == "champion" else 0.86, 0.02), 0, 1)),
                "average_precision": 0.3,
                "log_loss": float(self._random.normal(0.15, 0.01)),
                "mean_score": rate * 1.03,
                "positive_rate": float(np.clip(self._random.normal(rate, 0.006), 0, 1)),
            }
            self._send("model_quality", record)

    def _experiment(self, now: int, looks: int) -> None:
        challenger = self._rollout.challengers[0].version
        decision = "Keep running: conversion rate improved, but guardrails are inconclusive for revenue per session."
        if looks <= EARLIER_LOOKS:
            challenger, decision = EARLIER_CHALLENGER, "Keep running: no significant difference yet."
        for kpi, (value, _) in USUAL.items():
            users = 90 * looks
            true = 0.06 if self._kpis[kpi].direction == "up" else -0.055
            width = 1.1 / np.sqrt(looks) * (0.35 if value > 0.3 else 0.7)
            relative = true + width * 0.3 * np.sin(looks / 25 + len(kpi))
            low, high = relative - width, relative + width
            is_up = self._kpis[kpi].direction == "up"
            is_better = looks > EARLIER_LOOKS and (low > 0 if is_up else high < 0)
            guardrail = None if self._kpis[kpi].guardrail is None else "held" if is_better or width < 0.06 else "open"
            record = {
                "at": now,
                "treatment": "challenger",
                "baseline": "champion",
                "treatment_version": challenger,
                "baseline_version": self._rollout.champion,
                "kpi": kpi,
                "treatment_users": users,
                "baseline_users": 3 * users,
                "moved_users": looks,
                "no_data": None,
                "cap": 250.0 if kpi == "revenue_per_session" else None,
                "treatment_value": value * (1 + relative),
                "baseline_value": value,
                "difference": value * relative,
                "low": value * low,
                "high": value * high,
                "relative_difference": relative,
                "relative_low": low,
                "relative_high": high,
                "p_value": 0.2,
                "is_better": bool(is_better),
                "is_worse": False,
                "guardrail": guardrail,
                "sample_ratio_p": 0.41,
                "action": "keep_running",
                "decision": decision,
            }
            relatives = ("relative_difference", "relative_low", "relative_high")
            if kpi == "form_completion_rate":  # few forms: the baseline itself is uncertain
                record |= dict.fromkeys(relatives)
            if kpi == "engagement_rate":
                effect = ("treatment_value", "baseline_value", "difference", "low", "high", "p_value", *relatives)
                record |= dict.fromkeys(effect) | {
                    "no_data": "the denominator is 0 in every session, of one arm or both",
                    "is_better": False,
                }
            self._send("experiments", record)

    def _drift(self, window_end: int, strength: float) -> None:
        rows, features = 12_000, []
        distributions = {"score": self._reference["score"]} | self._reference["features"]
        for name, reference in distributions.items():
            shares = np.array(reference["shares"]) * self._random.gamma(900, 1 / 900, len(reference["shares"]))
            if name in DRIFTS and len(shares) > 1:
                shares[-1] += strength * (1.0 if name == DRIFTS[0] else 0.6)
            shares /= shares.sum()
            base = np.maximum(np.array(reference["shares"]), 1e-4)
            psi = float(((shares - base) * np.log(np.maximum(shares, 1e-4) / base)).sum())
            level = "alarm" if psi > 0.25 else "watch" if psi > 0.1 else "stable"
            part = {"name": name, "psi": psi, "level": level, "missing": reference["missing"], "unseen": 0.0}
            features.append(part | {"shares": shares.tolist()})
        moved = sorted((part for part in features if part["level"] != "stable"), key=lambda part: -part["psi"])
        levels = {part["level"] for part in features}
        record = {
            "window_start": window_end - 10 * MINUTE,
            "window_end": window_end,
            "model_version": self._rollout.champion,
            "rows": rows,
            "level": "alarm" if "alarm" in levels else "watch" if "watch" in levels else "stable",
            "score_psi": features[0]["psi"],
            "label_rate": 0.048,
            "moved": [part["name"] for part in moved],
            "features": features,
        }
        self._send("drift", record)

    def _send(self, role: str, record: dict, key: str | None = None, time_ms: int | None = None) -> None:
        topic = getattr(self._topics, role)
        self._producer.send(topic, json.dumps(record).encode(), key and key.encode(), timestamp_ms=time_ms)


def renamed(bundle: Path, directory: Path) -> Path:
    """A copy of a bundle under another version, which is the directory's name."""
    directory.mkdir(parents=True)
    for file in bundle.iterdir():
        (directory / file.name).write_bytes(file.read_bytes())
    manifest = json.loads((directory / "manifest.json").read_text())
    (directory / "manifest.json").write_text(json.dumps(manifest | {"version": directory.name}))
    return directory


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
