"""Whether a challenger may go on: guardrails, the policy, the live AUC of shadows, and the command that obeys them."""

import json
from dataclasses import replace as replace_field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from msgspec.structs import asdict, replace
from sklearn.metrics import roc_auc_score

from tests.support.bundles import make_bundle
from tests.support.sample_records import sample
from tests.unit.training.test_promote import Shop, two_models
from training.experiments.comparison import Report
from training.modeling.metrics import Estimate
from training.retraining.auto_ramp import consider
from training.retraining.run_store import Run, Window, passed_runs, write_run
from training.retraining.settings import RETRAINING_FILE, load_retraining
from training.rollout.guardrails import (
    GuardrailError,
    check_known,
    decide_shadow,
    decide_step,
    guardrails_at,
    refuse_unless_held,
)
from training.rollout.ledger import append, next_entry
from training.rollout.ramp_step import held_since, step_report
from training.rollout.shadow_quality import ShadowQuality, shadow_quality
from udfs.contracts.outputs import Outcome, ShadowScores
from udfs.measurement.design import Experiment, ExperimentArm
from udfs.measurement.effects import Effect, Interval
from udfs.measurement.experiment import KpiResult, choose_action, decision_text, guardrail_state
from udfs.measurement.kpis import KPIS_FILE, load_kpis
from udfs.rollout.plan import Challenger, Rollout, Step
from udfs.rollout.registry import Registry, seal, unseal

KPIS = load_kpis(Path("conf", KPIS_FILE))
HOUR_MS = 3_600_000


def effect_of(relative: tuple[float, float, float]) -> Effect:
    """On a KPI of 1, so that differences and relative differences are the same."""
    return Effect(1 + relative[0], 1.0, *relative, Interval(*relative), 0.5, 0.01, 1_000, 0.0)


def report(
    sample_ratio_p: float | None = 0.5, worse=(), margin: float = 0.02, **relative: tuple[float, float, float] | None
) -> Report:
    """Of an experiment with these relative effects and guardrails with this margin; None: no data."""
    findings = {}
    for name, interval in relative.items():
        effect = None if interval is None else effect_of(interval)
        state = guardrail_state(effect, KPIS[name], margin)
        why = None if effect else "too few users"
        findings[name] = KpiResult(KPIS[name], effect, why, is_worse=name in worse, margin=margin, guardrail=state)
    action = choose_action(sample_ratio_p, findings)
    arms = ExperimentArm("challenger", "v2"), ExperimentArm("champion", "v1")
    return Report(
        experiment=Experiment(*arms, (), 0),
        action=action,
        decision=decision_text(action, sample_ratio_p, findings, "challenger v2"),
        stretches=(),
        users={},
        sessions={},
        moved_users=0,
        dropped_sessions=0,
        sample_ratio_p=sample_ratio_p,
        findings=findings,
        money=None,
        bot_sessions=0,
        other_sessions=0,
    )


@pytest.mark.parametrize(
    ("kpi", "relative", "state"),
    [
        ("conversion_rate", (0.01, -0.02, 0.04), "held"),
        ("conversion_rate", (0.01, -0.0201, 0.04), "open"),
        ("conversion_rate", (-0.05, -0.08, -0.02), "open"),
        ("conversion_rate", (-0.05, -0.08, -0.0201), "broken"),
        ("bounce_rate", (-0.01, -0.04, 0.02), "held"),
        ("bounce_rate", (0.01, -0.04, 0.0201), "open"),
        ("bounce_rate", (0.05, 0.0201, 0.08), "broken"),
        ("conversion_rate", None, "open"),
    ],
)
def test_a_guardrail_is_held_or_broken_by_the_whole_interval(kpi, relative, state):
    assert report(**{kpi: relative}).guardrails[kpi].guardrail == state


def test_without_a_relative_interval_a_guardrail_is_open():
    assert guardrail_state(replace_field(effect_of(HELD), relative=None), KPIS["conversion_rate"], 0.02) == "open"


HELD, OPEN, BROKEN = (0.0, -0.01, 0.01), (0.0, -0.1, 0.1), (-0.2, -0.3, -0.1)
STEPS = (Step(share=0.05, guardrails={"conversion_rate": 0.1}), Step(share=0.5, guardrails={"bounce_rate": 0.02}))


@pytest.mark.parametrize(
    ("share", "guardrails"),
    [(0.01, {}), (0.05, {"conversion_rate": 0.1}), (0.3, {"conversion_rate": 0.1}), (0.5, {"bounce_rate": 0.02})],
)
def test_the_guardrails_are_those_of_the_step_that_was_reached(share, guardrails):
    assert guardrails_at(Rollout(salt="s", champion="v1", steps=STEPS), share) == guardrails


@pytest.mark.parametrize(
    ("found", "hours", "is_last", "act"),
    [
        (report(conversion_rate=HELD), 24, False, "ramp"),
        (report(conversion_rate=HELD), 24, True, "champion"),
        (report(conversion_rate=HELD), 23, False, "wait"),
        (report(conversion_rate=OPEN), 48, False, "wait"),
        (report(), 48, False, "ramp"),
        (report(conversion_rate=None), 48, False, "wait"),
        (report(conversion_rate=BROKEN), 24, False, "stop"),
        (report(conversion_rate=BROKEN), 1, True, "stop"),
        (report(conversion_rate=HELD, bounce_rate=OPEN, worse=["bounce_rate"]), 1, False, "stop"),
        (report(sample_ratio_p=0.0001, conversion_rate=HELD), 24, False, "wait"),
        (report(sample_ratio_p=0.0001, conversion_rate=BROKEN), 24, False, "wait"),
        (report(sample_ratio_p=None, conversion_rate=HELD), 24, False, "ramp"),
    ],
)
def test_a_step_is_left_by_its_time_and_its_guardrails(found, hours, is_last, act):
    verdict = decide_step(found, hours * HOUR_MS, 24 * HOUR_MS, is_last)
    assert verdict.act == act
    assert verdict.why


def live(low: float, high: float, users: int = 100) -> ShadowQuality:
    value = Estimate((low + high) / 2, low, high)
    return ShadowQuality(1_000, users, value, value, value)


@pytest.mark.parametrize(
    ("quality", "hours", "act"),
    [
        (live(0.01, 0.05), 24, "start"),
        (live(-0.01, 0.05), 24, "start"),
        (live(-0.02, 0.05), 24, "wait"),
        (live(-0.05, -0.01), 24, "wait"),
        (live(-0.05, -0.011), 24, "stop"),
        (live(0.01, 0.05), 23, "wait"),
        (live(-0.05, -0.02), 23, "wait"),
        (live(0.01, 0.05, users=49), 24, "wait"),
        (None, 24, "wait"),
    ],
)
def test_a_shadow_starts_by_its_time_and_its_live_auc(quality, hours, act):
    verdict = decide_shadow(quality, hours * HOUR_MS, 24 * HOUR_MS, margin=0.01, positive_users=50)
    assert verdict.act == act
    assert verdict.why


# Live AUC


def place(row: int) -> dict:
    """Whose click a row is, and where it is."""
    return {"user_id": f"u{row // 3}", "source_partition": row % 2, "source_offset": row}


def clicks(count: int, seed: int = 3) -> tuple[list[Outcome], list[ShadowScores]]:
    """Scores by v1, which know nothing, and by its shadow v2, which know something."""
    rng = np.random.default_rng(seed)
    labels = rng.random(count) < 0.3
    outcomes = [
        sample("outcomes", **place(row), event_time=row * 1000, score=float(score), label=bool(label))
        for row, (score, label) in enumerate(zip(rng.random(count), labels))
    ]
    shadows = [
        sample("shadow_scores", **place(row), shadow_versions=["v9", "v2"], shadow_scores=[0.5, float(score)])
        for row, score in enumerate((rng.random(count) + 0.5 * labels) / 1.5)
    ]
    return outcomes, shadows


def test_the_live_auc_is_that_of_the_clicks_that_both_scored():
    outcomes, shadows = clicks(900)
    found = shadow_quality(outcomes, shadows[100:], "v2", "v1")
    joined = pd.DataFrame(map(as_row, outcomes)).merge(pd.DataFrame(map(as_shadow_row, shadows[100:])), on=KEY)
    assert found.rows == len(joined) == 800
    assert found.shadow.value == pytest.approx(roc_auc_score(joined["label"], joined["theirs"]))
    assert found.champion.value == pytest.approx(roc_auc_score(joined["label"], joined["score"]))
    assert found.difference.value == pytest.approx(found.shadow.value - found.champion.value)
    assert found.positive_users == joined[joined["label"]]["user_id"].nunique()
    assert found.difference.low > 0


KEY = ["user_id", "source_partition", "source_offset"]


def as_row(outcome: Outcome) -> dict:
    return {name: getattr(outcome, name) for name in (*KEY, "score", "label")}


def as_shadow_row(shadow: ShadowScores) -> dict:
    return {name: getattr(shadow, name) for name in KEY} | {"theirs": shadow.shadow_scores[1]}


def test_repeated_clicks_count_once_and_others_do_not_count():
    outcomes, shadows = clicks(300)
    others = [
        sample("outcomes", user_id="x", source_offset=1000, score=0.9, label=True, evaluated=False),
        sample("outcomes", user_id="y", source_offset=1001, score=0.9, label=True, model_version="v3"),
    ]
    more = [
        sample("shadow_scores", user_id=one.user_id, source_offset=one.source_offset, shadow_scores=[0.1])
        for one in others
    ]
    not_it = [sample("shadow_scores", user_id="z", source_offset=2000, shadow_versions=["v9"], shadow_scores=[0.1])]
    expected = shadow_quality(outcomes, shadows, "v2", "v1")
    assert shadow_quality(
        [*outcomes, *outcomes[:50], *others], [*shadows, *shadows[:50], *more, *not_it], "v2", "v1"
    ) == (expected)


def test_without_a_click_in_common_there_is_no_live_auc():
    outcomes, shadows = clicks(30)
    assert shadow_quality(outcomes[:15], shadows[15:], "v2", "v1") is None
    assert shadow_quality(outcomes, shadows, "v3", "v1") is None


# Sessions of a step, and the commands that look at them

NOW = datetime.now(UTC).replace(microsecond=0)
#: Wide enough for the few sessions of these tests.
GUARDED = (Step(share=0.1, guardrails={"conversion_rate": 0.5}), Step(share=0.3), Step(share=0.5))


VERSIONS = {"challenger": "v2", "champion": "v1"}


def session(user: str, arm: str, buys: bool, started: datetime = NOW + timedelta(hours=1)) -> dict:
    started_ms = int(started.timestamp() * 1000)
    counts = ("view_promotions", "select_promotions", "add_to_carts", "begin_checkouts", "form_starts", "form_submits")
    return {
        "user_id": user,
        "arm": arm,
        "model_version": VERSIONS[arm],
        "started_at": started_ms,
        "ended_at": started_ms + 60_000,
        "events": 3,
        "pages": 2,
        **dict.fromkeys(counts, 0),
        "purchases": int(buys),
        "revenue": 10.0 * buys,
    }


def sessions(challenger: float, champion: float = 0.5, users: int = 4_000, share: float = 0.1, **more) -> list[dict]:
    """With so many purchases a session in each arm."""
    treated = round(users * share)
    arms = [("challenger", challenger)] * treated + [("champion", champion)] * (users - treated)
    return [session(f"u{n}", arm, (n * 0.618) % 1 < rate, **more) for n, (arm, rate) in enumerate(arms)]


def write_sessions(directory, records: list[dict]) -> str:
    path = directory / "sessions.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("shop") / "template"


@pytest.fixture
def shop(tmp_path, capsys, template) -> Shop:
    """A champion, v1, and a challenger, v2, at a step with a guardrail."""
    return Shop(tmp_path, capsys).begin_once(template, guarded_step)


def guarded_step(shop: Shop) -> None:
    two_models(shop)
    shop.apply(steps=[{"share": step.share, "guardrails": step.guardrails} for step in GUARDED])
    shop.do("start", "v2", "--at-most", "0.5")


def test_sessions_from_before_the_step_do_not_count(shop):
    registry = Registry(str(shop.registry))
    before = sessions(0.0, started=NOW - timedelta(days=1))
    now = sessions(0.6)
    found = step_report(registry, "v2", pd.DataFrame([*before, *now]), KPIS)
    assert found.users == {"challenger": 400, "champion": 3_600}
    assert found.findings["conversion_rate"].effect.treatment == pytest.approx(0.6, abs=0.01)
    assert found.sample_ratio_p == 1.0
    assert list(found.guardrails) == ["conversion_rate"]


def test_history_narrows_the_interval_of_a_step(shop):
    """Buyers of before buy again, so that who bought before says much of who buys now."""
    registry = Registry(str(shop.registry))
    now = sessions(0.5)
    before = [row | {"started_at": row["started_at"] - 86_400_000} for row in now]
    for row in before[::5]:
        row["purchases"] = 1 - row["purchases"]
        row["revenue"] = 10.0 * row["purchases"]

    def width(rows: list[dict]) -> float:
        effect = step_report(registry, "v2", pd.DataFrame(rows), KPIS).findings["conversion_rate"].effect
        return effect.high - effect.low

    assert width([*before, *now]) < 0.9 * width(now)


def test_a_step_at_which_the_champion_has_no_users_is_refused(shop):
    shop.do("ramp", "v2", "--share", "0.3", "--force")
    registry = Registry(str(shop.registry))
    rollout = registry.newest().rollout
    alone = Rollout(salt="s", champion="v1", challengers=(Challenger(version="v2", share=1.0, at_most=1.0, start=0.0),))
    append(registry, next_entry(registry), alone, by="a", command=("apply",), why="all users")
    assert rollout.challengers[0].share == 0.3
    with pytest.raises(GuardrailError, match="the champion has no users to compare v2 with"):
        step_report(registry, "v2", pd.DataFrame(sessions(0.6)), KPIS)


def test_a_step_holds_since_role_share_and_champion_are_what_they_are(shop):
    def since(version: str) -> int:
        for number in Registry(str(shop.registry)).numbers():
            stamp(shop.registry, number)
        return held_since(Registry(str(shop.registry)), version).minute

    shop.stage("v3")
    for command in (["shadow", "v3"], ["ramp", "v2", "--share", "0.3", "--force"], ["stop", "v3"]):
        shop.do(*command)
    assert since("v2") == 5
    shop.do("rollback", "--to", "4")
    assert (since("v2"), since("v3")) == (7, 7)


def stamp(registry, number: int) -> None:
    """Entries of a test are made within one second: give each a minute of its own, its number."""
    path = registry / "ledger" / f"{number:08d}.json"
    entry = json.loads(unseal(path.read_bytes())) | {"at": f"2026-01-01T00:{number:02d}:00Z"}
    path.write_bytes(seal(json.dumps(entry).encode()))


def test_ramp_asks_for_sessions_where_the_step_has_guardrails(shop):
    assert shop.refused("ramp", "v2") == (
        "the step at 0.1 has guardrails: give --sessions PATH, or --sessions topic, to check them; "
        "--force overrides this"
    )


def test_ramp_goes_on_when_the_guardrails_hold_and_then_needs_none(shop):
    shop.do("ramp", "v2", "--sessions", write_sessions(shop.directory, sessions(0.6)))
    assert (shop.shares, shop.entry.forced) == ({"v2": 0.3}, False)
    shop.do("ramp", "v2")
    shop.do("ramp", "v2", "--to-champion")
    assert shop.rollout.champion == "v2"


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (sessions(0.1), "conversion_rate -79.5% (-9"),
        (sessions(0.5, users=320), "may be worse by 50.0%: open"),
        (sessions(0.6)[:399], "conversion_rate has no data (the baseline has no sessions"),
        (sessions(0.6)[200:], "Fix first: sample ratio mismatch"),
        (sessions(0.6, started=NOW - timedelta(days=1)), "conversion_rate has no data (the treatment has no sessions)"),
    ],
    ids=["broken", "open", "no champion", "users lost", "before the step"],
)
def test_ramp_is_refused_when_guardrails_do_not_hold_but_by_force(shop, records, message):
    path = write_sessions(shop.directory, records)
    refusal = shop.refused("ramp", "v2", "--sessions", path)
    assert message in refusal
    assert refusal.endswith("; --force overrides this")
    assert "forced: " in shop.do("ramp", "v2", "--sessions", path, "--force")
    assert (shop.shares, shop.entry.forced) == ({"v2": 0.3}, True)
    assert shop.entry.command == ("ramp", "v2", "--sessions", path, "--force")


def test_kpis_lie_beside_the_settings(shop, tmp_path):
    path = write_sessions(shop.directory, sessions(0.6))
    conf = tmp_path / "retraining.yaml"
    conf.touch()
    assert shop.refused("ramp", "v2", "--sessions", path, "--conf", str(conf)).startswith("kpis.yaml: cannot be read")
    (tmp_path / "kpis.yaml").write_text(Path("conf", KPIS_FILE).read_text())
    shop.do("ramp", "v2", "--sessions", path, "--conf", str(conf))
    assert shop.entry.command == ("ramp", "v2", "--sessions", path, "--conf", str(conf))


def test_fewer_users_are_given_whatever_the_guardrails_say(shop):
    shop.do("ramp", "v2", "--share", "0.05")
    assert shop.shares == {"v2": 0.05}


def test_two_challengers_are_told_apart_by_their_versions(shop):
    shop.stage("v3")
    shop.do("start", "v3", "--at-most", "0.2", "--share", "0.1")
    other = [row | {"model_version": "v3"} for row in sessions(0.0)[:400]]
    path = write_sessions(shop.directory, [*sessions(0.6), *(row | {"user_id": f"w{row['user_id']}"} for row in other)])
    shop.do("ramp", "v2", "--sessions", path)
    assert shop.shares == {"v2": 0.3, "v3": 0.1}


def test_a_guardrail_that_is_not_held_is_named():
    with pytest.raises(GuardrailError, match="conversion_rate .* may be worse by 2.0%: open"):
        refuse_unless_held(report(conversion_rate=OPEN))


def test_a_guardrail_without_data_says_what_to_do():
    with pytest.raises(GuardrailError, match="bounce_rate has no data .*leave its guardrail out of the steps"):
        refuse_unless_held(report(bounce_rate=None))


def test_a_guardrail_on_a_kpi_that_is_not_defined_is_refused():
    with pytest.raises(GuardrailError, match="guardrail on profit, which kpis.yaml does not define"):
        check_known(KPIS, {"conversion_rate": 0.02, "profit": 0.1})


# The policy on a registry


class Policy:
    """A model that retraining has entered in shadow, and topics that tests write."""

    def __init__(self, directory):
        self.registry = Registry(str(directory / "registry"))
        self.now = datetime.now(UTC)
        self.topics: dict[str, list[dict]] = {}
        self.kpis = KPIS
        rules = ["ramping.auto=true", "ramping.shadow_for=1 h", "ramping.step_for=1 h"]
        self.settings = load_retraining(RETRAINING_FILE, [f"registry={directory}/registry", *rules])

    def read(self, kafka, topic: str, since_ms: int):
        assert kafka["bootstrap.servers"]
        return (json.dumps(record).encode() for record in self.topics.get(topic, ()))

    def after(self, hours: float) -> str | None:
        """What is told of a look, so long after the last change."""
        at = held_since(self.registry, "v2") + timedelta(hours=hours)
        return consider(self.registry, self.settings, self.kpis, at, self.read)

    def live(self, shadow_knows: bool) -> None:
        outcomes, shadows = clicks(900)
        if not shadow_knows:
            outcomes, shadows = invert(outcomes, shadows)
        self.topics["outcomes"] = [asdict(one) for one in outcomes]
        self.topics["shadow_scores"] = [asdict(one) for one in shadows]

    def sessions(self, challenger: float, share: float = 0.1) -> None:
        self.topics["sessions"] = sessions(challenger, share=share)

    @property
    def acts(self) -> list[str]:
        return [decision.act for decision in passed_runs(self.registry)["v2"].decisions]


def invert(outcomes: list[Outcome], shadows: list[ShadowScores]) -> tuple[list[Outcome], list[ShadowScores]]:
    """The champion knows something, and the shadow does not."""
    known = {one.source_offset: one.shadow_scores[1] for one in shadows}
    scored = [replace(one, score=known[one.source_offset]) for one in outcomes]
    plain = {one.source_offset: one.score for one in outcomes}
    told = [replace(one, shadow_scores=[0.5, plain[one.source_offset]]) for one in shadows]
    return scored, told


@pytest.fixture
def policy(tmp_path, capsys) -> Policy:
    shop = Shop(tmp_path, capsys)
    shop.stage("v1")
    shop.do("stage", str(make_bundle(tmp_path / "models", "v2", auc=0.6)))  # by its own holdout worse
    shop.do("start", "v1", "--champion")
    shop.apply(steps=[{"share": step.share, "guardrails": step.guardrails} for step in GUARDED])
    shop.do("shadow", "v2")
    policy = Policy(tmp_path)
    started = datetime.now(UTC)
    window = Window(context=0, start=0, newest=1, matured=2, end=3)
    run = Run(run="r", started=started, trigger="t", state="passed", window=window, champion="v1", settings="s")
    write_run(policy.registry, replace(run, version="v2", finished=started))
    return policy


def test_the_policy_goes_all_the_way_from_shadow_to_champion(policy):
    policy.live(shadow_knows=True)
    policy.sessions(0.6)
    assert "wait: in shadow for 0.5 h of 1.0 h" in policy.after(0.5)
    assert "start: live AUC" in policy.after(1)
    entry = policy.registry.newest()
    assert (entry.by, entry.command, entry.forced) == ("retrain", ("start", "v2", "--at-most", "0.5"), True)
    assert "live AUC" in entry.why
    assert "wait: at this step for 0.5 h" in policy.after(0.5)
    assert "ramp: conversion_rate" in policy.after(1)
    assert policy.registry.newest().rollout.challengers[0].share == 0.3
    for act, share in (("ramp", 0.3), ("champion", 0.5)):
        policy.sessions(0.6, share)
        assert f"v2: {act}: the step has no guardrails" in policy.after(1)
    assert policy.registry.newest().rollout.versions == ("v2",)
    assert policy.acts == ["wait", "start", "wait", "ramp", "ramp", "champion"]
    assert policy.after(1) is None


def test_the_policy_stops_a_shadow_that_is_worse_live(policy):
    policy.live(shadow_knows=False)
    assert "stop: live AUC" in policy.after(1)
    assert policy.registry.newest().rollout.versions == ("v1",)


def test_the_policy_stops_a_challenger_whose_guardrail_breaks(policy):
    policy.live(shadow_knows=True)
    policy.after(1)
    policy.sessions(0.1)
    assert "stop: Stop challenger v2: conversion rate" in policy.after(0.1)
    assert policy.registry.newest().rollout.versions == ("v1",)


def test_the_policy_waits_while_a_guardrail_is_on_a_kpi_that_is_not_defined(policy):
    policy.live(shadow_knows=True)
    policy.after(1)
    policy.sessions(0.3)
    policy.kpis = {name: kpi for name, kpi in KPIS.items() if name != "conversion_rate"}
    assert "wait: the rollout has a guardrail on conversion_rate" in policy.after(1)


def test_the_policy_waits_while_sessions_are_few_and_says_so_once_in_the_record(policy):
    policy.live(shadow_knows=True)
    policy.after(1)
    for _ in range(2):
        assert "wait: conversion_rate has no data (the treatment has no sessions)" in policy.after(1)
    assert policy.acts == ["start", "wait"]


def test_the_policy_leaves_models_alone_that_people_have_entered(policy):
    write_run(policy.registry, replace(passed_runs(policy.registry)["v2"], version="another"))
    assert policy.after(100) is None
