"""The demo's records, sent and received, and the figures computed from them."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import msgspec
import numpy as np
from rich.console import Group
from rich.table import Table
from sklearn.metrics import roc_auc_score

from training.data.sources import Record
from training.simulation.clickstream import Clickstream, best_auc
from udfs.contracts.outputs import DeadLetter, Score

HOT_USERS, HOT_EVENTS = 5, 6

_decode_score = msgspec.json.Decoder(Score).decode
_decode_letter = msgspec.json.Decoder(DeadLetter).decode


class _Identified(msgspec.Struct):
    event_id: str | None = None


@dataclass
class DemoOutcome:
    """The records sent and received so far. One thread sends, another one receives."""

    dead_letter_topic: str
    sent: int = 0
    scores: dict[str, float] = field(default_factory=dict)  # by event id
    dead_letters: Counter[str] = field(default_factory=Counter)  # by reason
    latencies_ms: list[float] = field(default_factory=list)  # of live clicks
    _sent_at: dict[str, float] | None = None  # of live clicks, by event id
    _live_since: float = 0.0
    _scored_before: int = 0
    _last_score_at: float = 0.0

    def begin_live(self) -> None:
        """Measure latency from now on."""
        self._sent_at = {}
        self._live_since = time.time()
        self._scored_before = len(self.scores)

    def noted(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yield the records, and note each as sent when it is taken."""
        for record in records:
            self.sent += 1
            if self._sent_at is not None:
                self._note_time(record[1])
            yield record

    def _note_time(self, value: bytes) -> None:
        try:
            event_id = msgspec.json.decode(value, type=_Identified).event_id
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return  # one of the broken records: no score will come
        if event_id is not None:
            self._sent_at.setdefault(event_id, time.time())  # a broken copy follows its click

    def received(self, topic: str, value: bytes, now: float) -> None:
        """Add a record of the scores or dead-letters topic."""
        if topic == self.dead_letter_topic:
            self.dead_letters[_decode_letter(value).reason] += 1
            return
        score = _decode_score(value)
        self.scores[score.event_id] = score.score
        self._last_score_at = now
        if self._sent_at is not None and score.event_id in self._sent_at:
            self.latencies_ms.append((now - self._sent_at[score.event_id]) * 1000)

    @property
    def answered(self) -> int:
        return len(self.scores) + self.dead_letters.total()

    @property
    def live_rate(self) -> float:
        """Scores per second since begin_live."""
        return (len(self.scores) - self._scored_before) / (self._last_score_at - self._live_since)

    def progress(self, total: int) -> str:
        """One line of progress."""
        line = f"sent {self.sent:,}/{total:,}, scored {len(self.scores):,}, dead letters {self.dead_letters.total():,}"
        recent = self.latencies_ms[-500:]
        latency = f", p50 latency {np.percentile(recent, 50):.0f} ms (last {len(recent)} scores)" if recent else ""
        return line + latency


def report(stream: Clickstream, outcome: DemoOutcome) -> dict:
    """The figures of build/demo.json."""
    p50, p95, p99 = np.percentile(outcome.latencies_ms, [50, 95, 99]).round(1).tolist()
    clicks = list(stream.clicks())
    scores = np.array([outcome.scores[click["event_id"]] for click in clicks])
    labels, rows = stream.labels()
    return {
        "events": outcome.sent,
        "scores": len(outcome.scores),
        "dead_letters": outcome.dead_letters.total(),
        "dead_letters_by_reason": dict(outcome.dead_letters.most_common()),
        "live_rate": round(outcome.live_rate, 1),
        "latency_ms": {"p50": p50, "p95": p95, "p99": p99},
        "auc": round(roc_auc_score(labels[rows], scores[rows]), 4),
        "best_possible_auc": round(best_auc(stream), 4),
        "hottest_users": _hottest_users(clicks, scores),
    }


def _hottest_users(clicks: list[dict], scores: np.ndarray) -> list[dict]:
    """The users with the highest scores, each with the last events before it."""
    hottest, seen = [], set()
    for row in np.argsort(-scores, kind="stable").tolist():
        user = clicks[row]["user_id"]
        if user in seen:
            continue
        seen.add(user)
        earlier = [click for click in clicks[: row + 1] if click["user_id"] == user][-HOT_EVENTS:]
        hottest.append(
            {"user_id": user, "score": round(float(scores[row]), 4), "events": list(map(_in_words, earlier))}
        )
        if len(hottest) == HOT_USERS:
            break
    return hottest


def _in_words(click: dict) -> str:
    return f"{click['event_name']} {click['item_id']}" if "item_id" in click else click["event_name"]


def report_table(figures: dict) -> Group:
    """The figures as tables for the terminal."""
    latency = figures["latency_ms"]
    summary = Table(show_header=False, title="Results", title_justify="left")
    summary.add_row("Events sent", f"{figures['events']:,}")
    summary.add_row("Scores", f"{figures['scores']:,}")
    summary.add_row("Dead letters", f"{figures['dead_letters']:,}")
    for reason, count in figures["dead_letters_by_reason"].items():
        summary.add_row(f"  {reason}", f"{count:,}")
    summary.add_row("Live throughput", f"{figures['live_rate']:.0f} scores/s")
    summary.add_row(
        "Live latency, producer to consumer",
        "  ".join(f"{name} {latency[name]:.0f} ms" for name in ("p50", "p95", "p99")),
    )
    summary.add_row(
        "AUC, purchase within 30 min",
        f"{figures['auc']:.3f} (best possible: {figures['best_possible_auc']:.3f})",
    )
    hot = Table("User", "Score", "Last events", title="Highest-scored users", title_justify="left")
    for user in figures["hottest_users"]:
        hot.add_row(user["user_id"], f"{user['score']:.3f}", " → ".join(user["events"]))
    return Group(summary, hot)
