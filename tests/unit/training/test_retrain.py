"""Retraining from an archive: what a run does, what it refuses, and how it goes on after a crash."""

import json
import re
import shutil
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from tests.support.bundles import make_bundle
from tests.support.sample_records import sample_fields
from tests.unit.training.data.test_preparation import archive
from training import promote, retrain
from training.bundles.signing import write_new_key
from training.modeling.metrics import Estimate
from training.reporting.recommendation import Alarm, AlarmKind, Recommendation, ShipDecision
from training.retraining import run as retraining_run
from training.retraining.gates import ModelComparison, failed, judge
from training.retraining.lock import locked
from training.retraining.run_store import newest_run, read_runs, write_run
from training.retraining.scheduler import Watch
from training.retraining.settings import RETRAINING_FILE, GateSettings, RetrainingError, load_recipe, load_retraining
from training.rollout import service as rollout_service
from training.simulation.clickstream import Clickstream, Simulation, simulate
from udfs.measurement.kpis import KPIS_FILE
from udfs.measurement.labels import CONVERTED, LABELS_FILE, Label
from udfs.models.bundle import load_bundle
from udfs.rollout.registry import Registry

pytestmark = pytest.mark.usefixtures("without_plots")

CONF = Path(__file__).parents[3] / "conf"
OTHER_LABEL = Label(events=("begin_checkout",), horizon="1 h")
HOUR_MS = 3_600_000
TRAINING = """
features: [cart_adds_30m, checkouts_30m, events_5m, session_duration_s]
rounds: 5
folds: 2
prune: false
repeats: 0
model: xgboost
parameters: {teacher_share: 0.6}
compare: []
threads: 1
"""


@cache
def two_days() -> Clickstream:
    return simulate(Simulation(users=500, hours=48, seed=6))


@pytest.fixture(scope="session")
def clicks(tmp_path_factory) -> Path:
    """The archive of two days of a simulated shop."""
    directory, stream = tmp_path_factory.mktemp("archive"), two_days()
    archive(directory / "topic=clicks" / "day=2026-01-01" / "part-0", list(stream.clicks()), stream.arrival_ms, 1)
    return directory


class Shop:
    """A registry with a champion, and settings to retrain by."""

    def __init__(self, directory: Path, archived: Path, label: Label = CONVERTED):
        self.directory = directory
        self.registry = Registry(str(directory / "registry"))
        make_bundle(directory / "models", "v1", label=label)
        for command in (["stage", str(directory / "models" / "v1")], ["start", "v1", "--champion", "--why", "first"]):
            assert promote.main([*command, "--registry", self.registry.uri]) == 0
        (directory / "training.yaml").write_text(TRAINING)
        self.conf = directory / "retraining.yaml"
        for name in (RETRAINING_FILE.name, LABELS_FILE, KPIS_FILE):
            shutil.copy(CONF / name, directory)
        self.rules = [
            f"registry={self.registry.uri}",
            f"work={directory}/work",
            f"data.archive={archived}",
            "data.newest=12 h",
            "gates.positive_users=5",
            "gates.calibration=1.0",
        ]

    def set(self, *rules: str) -> None:
        self.rules += rules

    def run(self) -> int:
        return retrain.main(["--conf", str(self.conf), *(part for rule in self.rules for part in ("--set", rule))])

    @property
    def recipe(self):
        return load_recipe(self.conf, self.rules)

    @property
    def record(self):
        return newest_run(self.registry)


@pytest.fixture
def shop(tmp_path, clicks) -> Shop:
    return Shop(tmp_path, clicks)


class Crash(BaseException):
    """The end of the process, as far as the code is concerned."""


class Calls:
    """Functions of the run, and `append` of the ledger, counted; each ends the process the first time, before or after
    its work."""

    def __init__(self, monkeypatch, **crashes: str):
        self.counts = dict.fromkeys(crashes, 0)
        self.arguments: dict[str, tuple] = {}
        for name, when in crashes.items():
            module = rollout_service if name == "append" else retraining_run
            monkeypatch.setattr(module, name, self._counted(name, when, getattr(module, name)))

    def _counted(self, name: str, when: str, function):
        def counted(*arguments, **options):
            self.counts[name] += 1
            self.arguments[name] = arguments
            if self.counts[name] == 1 and when == "before":
                raise Crash(name)
            result = function(*arguments, **options)
            if self.counts[name] == 1 and when == "after":
                raise Crash(name)
            return result

        return counted


@pytest.mark.slow
def test_a_run_that_crashes_at_every_step_ends_in_shadow_and_repeats_no_step_that_had_finished(
    shop, monkeypatch, capsys
):
    public_key = write_new_key(shop.directory / "key.pem")
    shop.set(f"signing_key={shop.directory}/key.pem")
    calls = Calls(monkeypatch, prepare="never", train_model="before", compare_models="before", append="after")
    seen = []
    for step in ("train_model", "compare_models", "append"):
        with pytest.raises(Crash, match=step):
            shop.run()
        seen.append((shop.record.state, shop.record.finished))
    assert seen == [("training", None), ("evaluating", None), ("passed", None)]
    assert shop.run() == 0
    assert calls.counts == {"prepare": 1, "train_model": 2, "compare_models": 3, "append": 1}

    record, entry = shop.record, shop.registry.newest()
    assert len(read_runs(shop.registry)) == 1
    assert (record.state, record.trigger, record.champion) == ("passed", "by hand", "v1")
    assert record.finished is not None
    assert entry.rollout.shadows == (record.version,)
    assert Registry(shop.registry.uri, (public_key,)).manifest(record.version).version == record.version
    assert (entry.number, entry.by, entry.command) == (record.ledger_entry, "retrain", ("shadow", record.version))
    assert entry.why.startswith("by hand; AUC 0.")
    assert all(gate.passed for gate in record.gates)
    assert "going on with run" in capsys.readouterr().out
    bundle = shop.directory / "work" / record.run / "bundle"
    told = msgspec.json.decode((bundle / "metrics.json").read_bytes())
    assert told["champion"]["version"] == "v1"
    assert told["data"][0].endswith("examples for training and testing")
    assert (bundle / "model_card.md").exists()
    manifest = load_bundle(bundle, 64).manifest
    window, (rows, compared, *_) = record.window, calls.arguments["compare_models"]
    # The model that serves is fitted to the newest time, too; the one that was compared on it is not.
    assert manifest.training_window.end.timestamp() * 1000 > window.newest
    assert compared.manifest.training_window.end.timestamp() * 1000 + CONVERTED.horizon_ms < window.newest
    assert compared.model != load_bundle(bundle, 64).model
    assert window.end == two_days().arrival_ms.max()
    assert sorted(rows.time_ms.tolist()) == sorted(
        click["event_time"]
        for click in two_days().clicks()
        if window.newest <= click["event_time"] <= window.matured and click["event_name"] != "purchase"
    )
    assert not (shop.directory / "work" / record.run / "examples").exists()

    assert shop.run() == 2
    assert "is still in shadow or a challenger" in capsys.readouterr().err


SHIPPED = msgspec.json.encode({"recommendation": Recommendation(ShipDecision.SHIP, ())})


@pytest.fixture
def trained(shop, monkeypatch, tmp_path) -> Path:
    """Runs that find their model trained already, COMPARED with the champion: the bundle's directory."""
    bundle = make_bundle(tmp_path / "models", "v2", label=CONVERTED)
    (bundle / "metrics.json").write_bytes(SHIPPED)
    (bundle / "report.html").write_text("a report")
    work = retraining_run._Work
    monkeypatch.setattr(work, "_bundle", bundle)
    monkeypatch.setattr(work, "_prepare", lambda self, champion: None)
    monkeypatch.setattr(work, "_newest_rows", lambda self: None)
    monkeypatch.setattr(retraining_run, "compare_models", lambda *_: COMPARED)
    return bundle


@pytest.mark.slow
def test_a_candidate_that_fails_a_gate_is_not_entered_and_the_record_says_which(shop, trained, capsys):
    shop.set("gates.positive_users=100000")
    assert shop.run() == 3
    record = shop.record
    assert [gate.name for gate in record.gates if not gate.passed] == ["positives"]
    assert record.state == "failed"
    assert re.search(r"positives: \d+ \(required: at least 100000 users with a positive label\)", record.message)
    assert Path(record.message.rpartition(" ")[2]).exists()
    assert shop.registry.numbers() == [1]
    assert f"run {record.run} failed: positives" in capsys.readouterr().err
    assert shop.run() == 2
    assert f"no clicks have arrived since run {record.run}" in capsys.readouterr().err


def test_the_alarms_of_the_training_fail_the_candidate(shop, trained, capsys):
    alarm = Alarm(AlarmKind.SINGLE_FEATURE, 0.3, "price")
    found = Recommendation(ShipDecision.DO_NOT_SHIP, (alarm,))
    (trained / "metrics.json").write_bytes(msgspec.json.encode({"recommendation": found}))
    assert shop.run() == 3
    assert re.search(
        r"leaks: price carries the model by itself.* \(required: no sign of label leakage\)", shop.record.message
    )


@pytest.mark.slow
def test_a_bundle_that_an_earlier_version_left_is_trained_again(shop, monkeypatch, capsys):
    calls = Calls(monkeypatch, train_model="never", compare_models="before")
    with pytest.raises(Crash):
        shop.run()
    metrics = shop.directory / "work" / shop.record.run / "bundle" / "metrics.json"
    metrics.write_text('{"verdict": "Ship it, in shadow first.", "alarms": []}')
    assert shop.run() == 0
    assert calls.counts["train_model"] == 2
    assert f"training again: {metrics}: no recommendation that this version can read" in capsys.readouterr().out
    assert b"recommendation" in metrics.read_bytes()


@pytest.mark.slow
def test_a_model_that_is_not_refitted_is_compared_itself(shop, monkeypatch):
    settings = shop.directory / "training.yaml"
    settings.write_text(settings.read_text() + "refit: training\n")
    calls = Calls(monkeypatch, train_model="never", compare_models="never")
    assert shop.run() == 0
    served = load_bundle(shop.directory / "work" / shop.record.run / "bundle", 64)
    assert calls.arguments["compare_models"][1].manifest == served.manifest


# What the examples are


START_MS = 1_577_836_800_000


def tiny(directory: Path, *minutes: int) -> Path:
    """An archive of one user's clicks, one in each of these minutes."""
    clicks = [
        {"user_id": "a", "event_name": "page_view", "event_time": START_MS + minute * 60_000} for minute in minutes
    ]
    times = np.array([click["event_time"] for click in clicks])
    archive(directory / "topic=clicks" / "day=2020-01-01" / "part-0", clicks, times, 1)
    return directory


def test_the_last_matured_label_is_that_of_a_horizon_before_the_newest_click(tmp_path):
    data = replace(load_retraining(RETRAINING_FILE).data, archive=str(tiny(tmp_path, 0, 100, 1000)))
    wanted = {"history": "10 h", "newest": "1 h", "context": "5 h"}
    window = retraining_run.freeze(replace(data, **wanted), CONVERTED)
    minutes = {name: (getattr(window, name) - START_MS) / 60_000 for name in window.__struct_fields__}
    assert minutes == {"end": 1000, "matured": 970, "newest": 910, "start": 370, "context": 70}


# Refused, or broken off


def test_clicks_that_no_model_can_be_trained_on_are_refused_in_the_record(tmp_path, capsys):
    shop = Shop(tmp_path, tiny(tmp_path / "archive", *range(0, 2000, 10)))
    assert shop.run() == 2
    assert shop.record.state == "refused"
    assert "no purchase among 200 accepted events" in shop.record.message
    assert shop.record.finished is not None


def test_another_label_than_the_champions_is_refused_before_anything_is_read(tmp_path, clicks, monkeypatch):
    shop = Shop(tmp_path, clicks, label=OTHER_LABEL)
    calls = Calls(monkeypatch, prepare="before")
    assert shop.run() == 2
    assert calls.counts == {"prepare": 0}
    assert shop.record.message == (
        f'the label is "{CONVERTED}", the champion predicts "{OTHER_LABEL}": no metric compares the two'
    )


def test_a_registry_without_a_champion_and_an_archive_without_clicks_are_refused(shop, capsys):
    shop.set(f"data.archive={shop.directory}/none")
    assert shop.run() == 2
    assert "none/topic=clicks: no such file or directory" in capsys.readouterr().err
    shop.set(f"registry={shop.directory}/empty")
    assert shop.run() == 2
    assert "makes a champion" in capsys.readouterr().err


def fails(*_arguments, **_options):
    raise OSError("the disk is full")


def test_an_error_that_may_pass_leaves_the_run_open_for_the_next_start(shop, monkeypatch, capsys):
    monkeypatch.setattr(retraining_run, "prepare", fails)
    for _ in range(2):
        assert shop.run() == 1
    (run,) = read_runs(shop.registry)
    assert (run.state, run.finished, run.message) == ("error", None, "the disk is full")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"settings": "others"}, "the settings have changed since"),
        ({"started": datetime.now(UTC) - timedelta(hours=13)}, "it has not finished within 12 h"),
    ],
)
def test_a_run_that_is_too_old_or_of_other_settings_is_given_up_and_a_new_one_begins(shop, monkeypatch, changes, why):
    monkeypatch.setattr(retraining_run, "prepare", fails)
    shop.run()
    write_run(shop.registry, replace(shop.record, **changes))
    shop.run()
    old, new = read_runs(shop.registry)
    assert (old.state, old.message) == ("error", f"given up: {why}")
    assert old.finished is not None
    assert (new.state, new.finished) == ("error", None)


def test_a_second_run_is_refused_while_one_is_under_way(shop, capsys):
    with locked(shop.registry, HOUR_MS):
        assert shop.run() == 2
    assert "one retraining at a time" in capsys.readouterr().err
    assert shop.record is None


def test_a_change_of_the_champion_meanwhile_refuses_the_candidate(shop, trained, monkeypatch, tmp_path):
    def compare(*_arguments) -> ModelComparison:
        make_bundle(tmp_path / "models", "v3", label=CONVERTED)
        for command in (
            ["stage", str(tmp_path / "models" / "v3")],
            ["start", "v3", "--at-most", "0.1", "--share", "0.1", "--why", "w"],
            ["ramp", "v3", "--to-champion", "--why", "w"],
        ):
            assert promote.main([*command, "--registry", shop.registry.uri]) == 0
        return COMPARED

    monkeypatch.setattr(retraining_run, "compare_models", compare)
    assert shop.run() == 2
    assert shop.record.message == "v3 is the champion now, and the run compared with v1"


# Gates

COMPARED = ModelComparison(
    rows=1_000,
    positive_users=60,
    candidate=Estimate(0.8, 0.78, 0.82),
    champion=Estimate(0.79, 0.77, 0.81),
    difference=Estimate(0.01, -0.01, 0.03),
    calibration=Estimate(1.0, 0.9, 1.1),
)
WANTED = GateSettings(margin=0.01, calibration=0.2, positive_users=50)
BUNDLE = {"label": CONVERTED}


@pytest.mark.parametrize(
    ("gate", "changes"),
    [
        (None, {}),
        ("positives", {"positive_users": 49}),
        ("champion", {"difference": Estimate(0.0, -0.011, 0.02)}),
        ("champion", {"difference": Estimate(0.0, float("nan"), float("nan"))}),
        ("holdout", {"champion": Estimate(0.83, 0.81, 0.85)}),
        ("calibration", {"calibration": Estimate(1.3, 1.21, 1.4)}),
        ("calibration", {"calibration": Estimate(0.7, 0.6, 0.79)}),
        (None, {"calibration": Estimate(1.3, 1.19, 1.4)}),
        ("leaks", {"alarms": [Alarm(AlarmKind.IMPLAUSIBLE_AUC, 0.97)]}),
        ("leaks", {"alarms": [Alarm(AlarmKind.SINGLE_FEATURE, 0.3, "price")]}),
        ("bundle", {"bundle": {"export": {}}}),
        ("holdout", {"bundle": {"label": OTHER_LABEL}}),
    ],
)
def test_each_gate_that_fails_is_named_with_its_rule_and_value(tmp_path, gate, changes):
    changes = dict(changes)
    candidate = load_bundle(make_bundle(tmp_path, "v2", **BUNDLE | changes.pop("bundle", {})), 64)
    champion = load_bundle(make_bundle(tmp_path, "v1", **BUNDLE), 64).manifest
    alarms = changes.pop("alarms", [])
    gates = judge(ModelComparison(**vars(COMPARED) | changes), candidate, champion, alarms, WANTED)
    assert [one.name for one in gates if not one.passed] == ([gate] if gate else [])
    assert failed(gates).partition(":")[0] == (gate or "")
    assert all(one.rule and one.value for one in gates)


def test_the_champion_is_measured_on_the_same_rows_not_by_its_own_holdout(tmp_path):
    candidate = load_bundle(make_bundle(tmp_path, "v2", **BUNDLE), 64)
    champion = load_bundle(make_bundle(tmp_path, "v1", auc=0.99, **BUNDLE), 64).manifest
    assert not failed(judge(COMPARED, candidate, champion, [], WANTED))


# Watching


class Watched:
    """A watch whose topics and runs are the test's."""

    def __init__(self, shop: Shop, triggers: bool = True):
        self.topics: dict[str, list[dict]] = {}
        self.runs: list[str] = []
        self.lines: list[str] = []
        self.shop, self.now = shop, datetime.now(UTC)
        self.watch = Watch(shop.recipe, triggers, self.retrain, self.read, self.lines.append)

    def retrain(self, recipe, trigger: str, log):
        self.runs.append(trigger)
        window = retraining_run.freeze(recipe.settings.data, recipe.label)
        run = retraining_run.Run(
            run=f"run-{len(self.runs):03d}",
            started=self.now,
            trigger=trigger,
            state="failed",
            window=window,
            champion="v1",
            settings=recipe.digest,
            finished=self.now,
        )
        write_run(self.shop.registry, run)
        return run

    def read(self, _kafka, topic: str, since_ms: int):
        assert since_ms <= self.now.timestamp() * 1000 - 6 * HOUR_MS + 1
        return (json.dumps(record).encode() for record in self.topics.get(topic, ()))

    def look(self, after: timedelta = timedelta()) -> list[str]:
        """The lines of a look, so long after the last one."""
        self.now += after
        self.lines.clear()
        self.watch.look(self.now)
        return list(self.lines)

    def drift(self, *levels: str) -> None:
        self.topics["drift"] = [
            sample_fields("drift", window_start=n, window_end=n + 5, level=level, moved=["price"])
            for n, level in enumerate(levels)
        ]

    def quality(self, auc: float, scores: int) -> None:
        self.topics["model_quality"] = [sample_fields("model_quality", event_minute=0, scores=scores, roc_auc=auc)]


def test_a_watch_tells_what_has_changed_and_nothing_else(shop):
    watched = Watched(shop)
    assert watched.look() == ["v1 serves: drift not measured, live AUC not measured"]
    watched.quality(0.9, 2_000)
    watched.drift("stable", "alarm")
    assert watched.look() == ["v1 serves: drift alarm, live AUC as its bundle tells"]
    assert watched.look() == []
    assert watched.runs == []


def test_a_watch_retrains_for_its_reason_and_then_waits_for_the_cool_down(shop):
    watched = Watched(shop)
    watched.drift("alarm", "alarm", "alarm")
    watched.quality(0.7, 2_000)
    lines = watched.look()
    reason = (
        "drift alarm in 3 windows up to 1970-01-01 00:00 UTC: price moved; "
        "live AUC 0.7000 over 60 min, 2000 scores: its bundle's interval begins at 0.7800"
    )
    assert watched.runs == [reason]
    assert lines[-2:] == [f"retraining: {reason}", "run run-001 failed: "]
    watched.look(timedelta(hours=5.9))
    assert len(watched.runs) == 1
    watched.look(timedelta(hours=0.2))
    assert len(watched.runs) == 2


def test_a_watch_does_not_retrain_while_a_model_is_being_tried(shop, tmp_path):
    watched = Watched(shop)
    watched.retrain(shop.recipe, "before", print)
    write_run(shop.registry, replace(shop.record, state="passed", version="v2"))
    make_bundle(tmp_path / "models", "v2", label=CONVERTED)
    for command in (["stage", str(tmp_path / "models" / "v2")], ["shadow", "v2", "--why", "w"]):
        assert promote.main([*command, "--registry", shop.registry.uri]) == 0
    watched.drift("alarm", "alarm", "alarm")
    assert watched.look(timedelta(days=1)) == ["v1 serves: drift alarm, live AUC not measured; v2 is being tried"]
    assert watched.runs == ["before"]


def test_a_schedule_starts_runs_without_reading_topics(shop):
    shop.set("every=1 d")
    watched = Watched(shop, triggers=False)
    watched.drift("alarm", "alarm", "alarm")
    for after in (0, 23, 0.9, 0.2):
        watched.look(timedelta(hours=after))
    assert watched.runs == ["schedule: every 1 d"] * 2


def test_a_watch_goes_on_with_a_run_that_broke_off(shop, monkeypatch):
    monkeypatch.setattr(retraining_run, "prepare", fails)
    shop.run()
    watched = Watched(shop)
    watched.look()
    assert watched.runs == ["by hand"]


def test_a_topic_that_cannot_be_read_is_told_once_and_tried_again(shop):
    watched = Watched(shop)
    watched.topics["drift"] = [{"level": "alarm"}]
    message = "retraining: topic drift: Object missing required field `window_start`"
    assert watched.look() == [message]
    assert watched.look(timedelta(minutes=11)) == []
    watched.drift("stable")
    assert watched.look(timedelta(minutes=11)) == ["v1 serves: drift stable, live AUC not measured"]


# Settings


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("data.histori=14d", "key data.histori: unknown key"),
        ("data.history=14", "key data.history: "),
        ("data.newest=28 d", "key data.newest: 28 d leaves nothing of data.history, 28 d, to train on"),
        ("data.newest=0 d", "key data.newest: must be more than 0"),
        ("every=0 s", "key every: must be more than 0"),
        ("gates.margin=2", "key gates.margin: Expected `float` <= 1.0"),
        ("kafka.bootstrap.servers=null", "key kafka.bootstrap.servers: missing"),
        ("kafka.sasl.jaas.config=abc", "--set kafka.sasl.jaas.config: a secret on the command line shows"),
        ("kafka.sasl.jaas.config=${NOT_SET}", "key kafka.sasl.jaas.config: environment variable NOT_SET is not set"),
        ("registry.uri=x", "--set registry.uri: registry is not a section"),
        ("nothing", "--set nothing: expected KEY=VALUE"),
    ],
)
def test_a_setting_that_does_not_fit_is_one_line_with_its_key(rule, message):
    with pytest.raises(RetrainingError) as refused:
        load_retraining(RETRAINING_FILE, [rule], {})
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_secret_comes_from_the_environment_and_not_from_the_file(tmp_path):
    written = tmp_path / "retraining.yaml"
    written.write_text(RETRAINING_FILE.read_text() + "  sasl.jaas.config: hidden\n")
    with pytest.raises(RetrainingError, match=r"key kafka.sasl.jaas.config: a secret does not belong in a file"):
        load_retraining(written)
    rule = "kafka.sasl.jaas.config=${JAAS}"
    assert load_retraining(RETRAINING_FILE, [rule], {"JAAS": "hidden"}).kafka["sasl.jaas.config"] == "hidden"


def test_what_a_model_does_not_depend_on_does_not_start_a_run_anew(shop):
    digest = shop.recipe.digest
    shop.set("triggers.cool_down=1 h", "kafka.client.id=x", "ramping.auto=true")
    assert shop.recipe.digest == digest
    shop.set("data.newest=13 h")
    assert shop.recipe.digest != digest
