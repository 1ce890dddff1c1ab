"""The command: recorded clicks and models in, what each would have earned out; or one line that says what is wrong."""

import json
import re
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tests.support.bundles import make_bundle
from tests.support.own_features import declared, own_bundle
from tests.unit.training.backtesting.test_ledger import one_after_the_other
from tests.unit.training.data.test_preparation import archive
from training.backtest import main
from training.backtesting.replay import ReplayWindow
from training.backtesting.schedule import retrained
from training.data.examples import save_examples
from training.modeling.settings import Training
from training.simulation.clickstream import Simulation, simulate
from training.simulation.examples import simulated_examples
from udfs.features.declaration_file import STANDARD
from udfs.measurement.labels import CONVERTED, Label
from udfs.models.bundle import load_booster, load_bundle

RULE = "rule: {any: [cart_adds_30m >= 1]}\n"
HOUR_MS = 3_600_000
#: Time of the first simulated click, at midnight.
BEGIN_MS = 1_767_571_200_000


def moment(hours: float) -> str:
    return str(BEGIN_MS + round(hours * HOUR_MS))


@pytest.fixture(scope="module")
def stream():
    return simulate(Simulation(users=250, hours=36, seed=5, bot_share=0, late_share=0))


def in_order(stream) -> list[dict]:
    """The clicks by event time, which is the order of arrival in a file."""
    return sorted(stream.clicks(), key=lambda click: click["event_time"])


def write_lines(path: Path, records) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture(scope="module")
def shop(tmp_path_factory, stream):
    """Clicks, two models of a few features, and a rule."""
    directory = tmp_path_factory.mktemp("shop")
    write_lines(directory / "clicks.jsonl", in_order(stream))
    (directory / "rollout.yaml").write_text(RULE)
    make_bundle(directory, "v1", names=("cart_adds_30m", *STANDARD.names[:2]))
    make_bundle(directory, "v2", names=STANDARD.names[3:6])
    return directory


def run(shop: Path, out: Path, *arguments, clicks: Path | None = None, hours=(12, 30), models=("v1",)) -> int:
    options = ["--clicks", clicks or shop / "clicks.jsonl", "--from", moment(hours[0]), "--to", moment(hours[1])]
    if models:
        options += ["--models", *(shop / model for model in models)]
    return main([str(argument) for argument in (*options, "--out", out, "--set", "threads=1", *arguments)])


def report(out: Path) -> dict:
    return json.loads((out / "backtest.json").read_text())


def by_name(found: dict) -> dict:
    return {policy["name"]: policy for policy in found["policies"]}


def click(user_id: str, time_ms: int, name: str = "page_view") -> dict:
    return {"user_id": user_id, "event_name": name, "event_time": time_ms}


@pytest.mark.slow
def test_the_figures_are_those_of_a_loop_whatever_comes_after_the_end(shop, stream, tmp_path, capsys):
    """The clicks after --to are replaced by a purchase of everybody, which no figure may see."""
    threshold = 0.3
    arguments = ("--rule", shop / "rollout.yaml", "--threshold", threshold, "--benefit", 3, "--cost", 0.5)
    end_ms = BEGIN_MS + 30 * HOUR_MS
    known = [click for click in in_order(stream) if click["event_time"] <= end_ms]
    later = [click(user, end_ms + 1, "purchase") for user in sorted({event["user_id"] for event in known})]
    clicks = write_lines(tmp_path / "clicks.jsonl", [*known, *later])
    assert run(shop, tmp_path / "out", *arguments, models=("v1", "v2"), clicks=clicks) == 0
    found, printed = report(tmp_path / "out"), capsys.readouterr().out

    examples = simulated_examples(stream)
    order = np.lexsort((examples.time_ms, examples.user))
    examples = examples.take(order)
    begin, end = BEGIN_MS + 12 * HOUR_MS, BEGIN_MS + 30 * HOUR_MS
    inside = (examples.time_ms >= begin) & (examples.time_ms < end)
    mature = inside & (examples.time_ms + HOUR_MS // 2 <= end)
    assert (found["events"], found["immature"]) == (mature.sum(), (inside & ~mature).sum())
    assert found["positives"] == examples.labels[mature].sum()
    assert found["users"] == len(np.unique(examples.user[mature]))
    decided = {"rule": examples.features[:, examples.names.index("cart_adds_30m")] >= 1}
    for version in ("v1", "v2"):
        model = load_bundle(shop / version, 64)
        columns = [examples.names.index(name) for name in model.manifest.features]
        booster = load_booster(model.model)
        decided[version] = booster.inplace_predict(examples.features[:, columns]) >= np.float32(threshold)
    for name, policy in by_name(found).items():
        acted = np.flatnonzero(decided[name] & mature)
        acted = acted[one_after_the_other(examples.user[acted], examples.time_ms[acted], HOUR_MS // 2)]
        assert (policy["earnings"]["actions"], policy["earnings"]["conversions"]) == (
            len(acted),
            examples.labels[acted].sum(),
        )
        earned = 3 * examples.labels[acted].sum() - 0.5 * len(acted)
        assert policy["earnings"]["earned"]["value"] == pytest.approx(earned)
        assert len(policy["earnings"]["days"]) == 2
    assert by_name(found)["rule"]["earnings"]["conversions"] > 0
    pairs = [(one["policy"], one["baseline"]) for one in found["comparisons"]]
    assert pairs == [("v2", "v1"), ("v1", "rule"), ("v2", "rule")]
    page = (tmp_path / "out" / "backtest.html").read_text()
    assert page.count("<svg") == 1
    assert not re.search(r"""(src|href)=["']?[^"'#]|url\((?!#)|@import""", page)  # nothing is loaded from elsewhere
    assert "KNOWS THE FUTURE" not in printed + page
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["backtest.html", "backtest.json"]


@pytest.mark.slow
def test_a_training_sees_nothing_of_what_comes_after_it(stream, tmp_path):
    """Features and labels of all later events are scrambled: the first training stays the same, the second does not."""
    examples = simulated_examples(stream)
    boundaries = [BEGIN_MS + hours * HOUR_MS for hours in (20, 30)]
    window = ReplayWindow(boundaries[0], BEGIN_MS + 34 * HOUR_MS, BEGIN_MS + 34 * HOUR_MS, CONVERTED.horizon_ms)
    later = examples.time_ms + CONVERTED.horizon_ms > boundaries[0]
    scrambled = replace(
        examples,
        labels=np.where(later, ~examples.labels, examples.labels),
        features=np.where(later[:, None], np.float32(7.0), examples.features),
    )
    training = Training(
        model="xgboost",
        repeats=0,
        features=examples.names[:6],
        rounds=3,
        folds=2,
        prune=False,
        calibrate=False,
        threads=1,
        compare=(),
    )
    trainings = []
    for name, given in (("as it was", examples), ("scrambled", scrambled)):
        save_examples(given, tmp_path / name / "00000")
        policy, made = retrained([tmp_path / name / "00000"], window, 10 * HOUR_MS, training, CONVERTED)
        assert [tenure.from_ms for tenure in policy.tenures] == boundaries
        trainings.append(made)
    first, second = trainings
    assert first[0] == second[0]
    assert first[1].version != second[1].version
    assert [made.events for made in first] == [
        np.count_nonzero(examples.time_ms + CONVERTED.horizon_ms <= at) for at in boundaries
    ]


def test_a_training_that_is_not_possible_is_reported(stream, tmp_path):
    save_examples(simulated_examples(stream), tmp_path / "00000")
    window = ReplayWindow(BEGIN_MS, BEGIN_MS + HOUR_MS, BEGIN_MS + HOUR_MS, CONVERTED.horizon_ms)
    policy, [made] = retrained([tmp_path / "00000"], window, HOUR_MS, Training(), CONVERTED)
    assert policy.tenures == ()
    assert made.why == "0 of 0 events with a mature label are positive: both classes are needed"


def test_a_model_that_was_trained_on_the_stretch_is_flagged_and_gets_no_verdict(shop, stream, tmp_path, capsys):
    clicks = [event for event in in_order(stream) if event["event_time"] < BEGIN_MS + 20 * HOUR_MS]
    archive(tmp_path / "archive" / "part.parquet", clicks, np.array([event["event_time"] for event in clicks]))
    model = load_bundle(shop / "v1", 64).manifest.training_window
    window = msgspec.structs.replace(model, end=model.end.replace(day=5, hour=18))
    make_bundle(tmp_path, "leaky", names=load_bundle(shop / "v1", 64).manifest.features)
    manifest = tmp_path / "leaky" / "manifest.json"
    content = json.loads(manifest.read_text()) | {"training_window": json.loads(msgspec.json.encode(window))}
    manifest.write_text(json.dumps(content))
    arguments = ("--models", shop / "v1", tmp_path / "leaky", "--act-on", 0.05)
    assert run(shop, tmp_path / "out", *arguments, hours=(12, 18), models=(), clicks=tmp_path / "archive") == 0
    found = report(tmp_path / "out")
    assert {name: bool(policy["alarm"]) for name, policy in by_name(found).items()} == {"v1": False, "leaky": True}
    assert [(one["verdict"], one["why"]) for one in found["comparisons"]] == [
        ("not comparable", "leaky knows the future")
    ]
    page = (tmp_path / "out" / "backtest.html").read_text()
    for text in (capsys.readouterr().out, page.replace("</strong>", "").replace("<strong>", "")):
        assert "leaky KNOWS THE FUTURE: trained on events from 2026-01-01 00:00 to 2026-01-05 18:00 UTC" in text


def test_one_user_and_a_single_class_give_figures_and_no_verdict(shop, tmp_path, capsys):
    clicks = [click("u1", BEGIN_MS + minute * 60_000) for minute in range(0, 1200, 7)]
    alone = write_lines(tmp_path / "clicks.jsonl", clicks)
    assert run(shop, tmp_path, "--threshold", 0, hours=(1, 12), models=("v1", "v2"), clicks=alone) == 0
    found = report(tmp_path)
    assert [one["verdict"] for one in found["comparisons"]] == ["no data"]
    assert by_name(found)["v1"]["earnings"]["conversions"] == 0
    assert by_name(found)["v1"]["earnings"]["earned"]["value"] < 0
    assert f"no data for a comparison: none of the {found['events']} events is positive" in capsys.readouterr().err


def refusal(capsys, *arguments, **options) -> str:
    assert run(*arguments, **options) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return printed.err


@pytest.mark.parametrize(
    ("hours", "arguments", "message"),
    [
        ((30, 12), (), "--from 2026-01-06 06:00 UTC must be before --to 2026-01-05 12:00 UTC"),
        ((12, 12.5), (), "the time between them is not longer than the label's horizon, 30 min"),
        ((12, 30), ("--rule", "{shop}/none.yaml"), "none.yaml"),
        ((12, 30), ("--rule", "{shop}/bad.yaml"), "unknown feature carts; `intent features list` lists all features"),
        ((12, 30), ("--act-on", "rule"), "--act-on rule: there is no rule: name its file with --rule"),
        ((12, 30), ("--act-on", "1.5"), "expected a share above 0 and at most 1"),
        ((12, 30), ("--threshold", "0.1", "--act-on", "0.1"), "--threshold and --act-on can't be combined"),
        ((12, 30), ("--threshold", "v9=0.1"), "--threshold v9=...: expected one of v1"),
        ((12, 30), ("--threshold", "12"), "expected a score from 0 to 1, such as 0.2, or VERSION=SCORE, got '12'"),
        ((12, 30), ("--models", "{shop}/v1"), "are the same version, v1: name each once"),
        ((12, 30), ("--models", "{shop}/other"), "name the outcome that counts with --label"),
        ((12, 30), ("--models", "{shop}/short"), "v1 sees 64 events of a user, short sees 32"),
        (
            (12, 30),
            ("--models", "{shop}/own", "--retrain", "12 h"),
            "--models: own needs the kind of event quiz_completed with code 100, which the declaration of the settings",
        ),
        ((12, 30), ("--retrain", "0 s"), "--retrain 0 s: expected more than 0"),
        ((12, 30), ("--quiet", "soon"), "expected a duration such as 30 min, 12 h or 7 d, got 'soon'"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_read(shop, tmp_path, capsys, hours, arguments, message):
    (shop / "bad.yaml").write_text("rule: {any: [carts >= 1]}\n")
    if not (shop / "other").exists():
        make_bundle(shop, "other", label=Label(events=("begin_checkout",), horizon="1 h"))
        make_bundle(shop, "short", history_length=32)
        own_bundle(shop, "own", declared(shop))
    given = [argument.format(shop=shop) for argument in arguments]
    refused = refusal(capsys, shop, tmp_path / "out", *given, hours=hours)
    assert message in refused, refused
    assert not (tmp_path / "out").exists()


def test_without_a_policy_there_is_nothing_to_replay(shop, tmp_path, capsys):
    message = refusal(capsys, shop, tmp_path / "out", models=())
    assert message == "backtest: nothing to replay: give --models BUNDLE..., --retrain EVERY, or both\n"


def test_a_stretch_without_events_is_refused_with_the_times_that_there_are(shop, tmp_path, capsys):
    message = refusal(capsys, shop, tmp_path, hours=(100, 200))
    assert "no event to score from 2026-01-09 04:00 UTC to 2026-01-13 08:00 UTC: the clicks read are from" in message
    assert list(tmp_path.iterdir()) == []
