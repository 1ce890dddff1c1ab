"""Whether to ship a model: which decision and reasons follow, what the text says, and what JSON keeps of it."""

from types import SimpleNamespace
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.evaluation.rule_baseline import RuleBaseline
from training.modeling.metrics import Estimate
from training.reporting.recommendation import (
    IMPLAUSIBLE_AUC,
    NEGLIGIBLE_GAIN,
    RELIABLE_USERS,
    SINGLE_FEATURE_AUC,
    SINGLE_FEATURE_SHARE,
    WIDE_GAP,
    Alarm,
    AlarmKind,
    ChanceLevel,
    ComparedWithChampion,
    ComparedWithModel,
    ComparedWithRule,
    ComparisonOutcome,
    Diagnosis,
    FewPositiveUsers,
    Holdout,
    Interval,
    Limit,
    NotCompared,
    Reason,
    Recommendation,
    RecommendationError,
    RuleIsChance,
    RuleIsNoBaseline,
    ShipDecision,
    diagnose,
    find_alarms,
    read_recommendation,
    recommend,
)
from training.reporting.recommendation_text import diagnosis_text, reason_text, recommendation_text
from udfs.rollout.rules import Rule

NAN = float("nan")
GOOD_AUC, CHANCE_AUC = Estimate(0.8, 0.75, 0.85), Estimate(0.6, 0.45, 0.75)
BETTER, OPEN, WORSE = Estimate(0.02, 0.01, 0.03), Estimate(0.02, -0.01, 0.05), Estimate(-0.02, -0.03, -0.01)
UNDEFINED = Estimate(NAN, NAN, NAN)


def rule(gain: Estimate, acted_on: float = 0.1, auc: Estimate | None = None) -> RuleBaseline:
    some = Estimate(0.3, 0.2, 0.4)
    auc = Estimate(0.65, 0.6, 0.7) if auc is None else auc
    return RuleBaseline(
        rule=Rule(all=("cart_adds_30m >= 1",)),
        metrics={"roc_auc": auc, "average_precision": some},
        acted_on=Estimate(acted_on, acted_on, acted_on),
        precision=some,
        recall=some,
        model_precision=some,
        model_recall=some,
        differences={"roc_auc": some, "average_precision": some, "precision": gain, "recall": gain},
    )


def trained(auc: Estimate = GOOD_AUC, users: int = RELIABLE_USERS, drop: float = 0.1, **changes) -> SimpleNamespace:
    """A model, as far as recommendations look at it."""
    some = Estimate(0.021, 0.02, 0.022)
    evaluation = {
        "metrics": {"roc_auc": auc, "mean_probability": some, "positive_rate": some},
        "importance": [("cart_adds_30m", drop), ("country", 0.0)],
        "cross_validated_auc": 0.8,
        "training_auc": 0.82,
        "learning_curve": SimpleNamespace(last_doubling=OPEN),
        "model": "xgboost",
        "compared": {"logistic": {}},
        "repeated": measured(auc, logistic=BETTER),
        "single_auc": Estimate(0.7, 0.65, 0.75),
        "rule": None,
        "rows": {"holdout": 1_234},
        "users": {"holdout": 140},
        "gains": [{"share": 0.1, "gain": Estimate(0.41, 0.3, 0.5), "lift": Estimate(4.1, 3, 5)}],
    }
    manifest = SimpleNamespace(metrics={"test_positive_users": float(users)})
    return SimpleNamespace(evaluation=SimpleNamespace(**evaluation | changes), manifest=manifest)


def measured(auc: Estimate = GOOD_AUC, **gains: Estimate) -> SimpleNamespace:
    """What repeated cross-validation has found."""
    differences = {model: {"roc_auc": gain} for model, gain in gains.items()}
    return SimpleNamespace(repeats=2, folds=5, metrics={"roc_auc": auc}, differences=differences)


def against(**gains: Estimate) -> dict:
    return {"repeated": measured(**gains)}


MODELS = against(logistic=BETTER, lightgbm=BETTER)
SHADOW = ShipDecision.SHIP_IN_SHADOW
CASES = {
    "ship": (
        trained(),
        ShipDecision.SHIP,
        ComparedWithModel,
        "Ship this model, in shadow first. On new users it is clearly better than logistic regression (AUC difference "
        "+0.020, +0.010 to +0.030, in 2 x 5 folds of users).",
    ),
    "the regression itself": (
        trained(model="logistic", **against(logistic=OPEN)),
        ShipDecision.SHIP,
        ComparedWithModel,
        "Ship this model, in shadow first. It is logistic regression itself, so there is no simpler model to prefer",
    ),
    "the regression itself, of a training that is worse": (
        trained(model="logistic", **against(logistic=WORSE)),
        ShipDecision.SHIP,
        ComparedWithModel,
        "Ship this model, in shadow first. It is logistic regression itself",
    ),
    "not compared": (
        trained(repeated="`repeats` is 0"),
        SHADOW,
        NotCompared,
        "Run this model only in shadow or in an A/B test. It has not been compared with simpler models on new users: "
        "`repeats` is 0.",
    ),
    "ship, better than the rule": (
        trained(rule=rule(BETTER)),
        ShipDecision.SHIP,
        ComparedWithRule,
        "Ship this model, in shadow first. It is better than the rule: when both act on 10.0% of the events",
    ),
    "ship, nothing to compare with": (
        trained(compared={}, repeated=measured()),
        ShipDecision.SHIP,
        Holdout,
        "Ship this model, in shadow",
    ),
    "few users": (
        trained(users=49),
        SHADOW,
        FewPositiveUsers,
        "Run this model in shadow only. Only 49 holdout users have a positive label; figures are unreliable with fewer "
        "than 50.",
    ),
    "open against a model": (
        trained(**against(logistic=BETTER, lightgbm=OPEN)),
        SHADOW,
        ComparedWithModel,
        "Run this model only in shadow or in an A/B test. On new users there is no clear difference to LightGBM (AUC "
        "difference +0.020, -0.010 to +0.050, in 2 x 5 folds of users).",
    ),
    "undefined against a model": (trained(**against(logistic=UNDEFINED)), SHADOW, ComparedWithModel, "Run this model"),
    "open against the rule": (
        trained(rule=rule(OPEN)),
        SHADOW,
        ComparedWithRule,
        "Run this model only in shadow or in an A/B test. It is not clearly better than the rule",
    ),
    "worse than a model": (
        trained(**against(lightgbm=OPEN, logistic=WORSE)),
        ShipDecision.DO_NOT_SHIP,
        ComparedWithModel,
        "Do not ship this model. Logistic regression, trained on the same events, is clearly better on new users (AUC "
        "difference -0.020, -0.030 to -0.010, in 2 x 5 folds of users).",
    ),
    "worse than the rule": (
        trained(rule=rule(WORSE)),
        ShipDecision.DO_NOT_SHIP,
        ComparedWithRule,
        "Do not ship this model. It is no better than the rule: when both act on 10.0% of the events, the model's "
        "recall is 30% and the rule's 30% (difference in percentage points -2.0, -3.0 to -1.0).",
    ),
    "as good as the rule": (
        trained(rule=rule(Estimate(0.0, -0.05, 0.05))),
        ShipDecision.DO_NOT_SHIP,
        ComparedWithRule,
        "Do not ship this model. It is no better than the rule",
    ),
    "chance": (
        trained(CHANCE_AUC),
        ShipDecision.DO_NOT_SHIP,
        ChanceLevel,
        "Do not ship this model. It can't be told from chance: its AUC (0.6000, 0.4500 to 0.7500) is not clearly above",
    ),
    "no AUC": (
        trained(UNDEFINED),
        ShipDecision.DO_NOT_SHIP,
        ChanceLevel,
        "Do not ship this model. It can't be told from chance: its AUC (undefined, undefined to undefined)",
    ),
    "implausible AUC": (
        trained(Estimate(0.97, 0.96, 0.98)),
        ShipDecision.DO_NOT_SHIP,
        Alarm,
        "Do not ship this model until its alarms are explained. This AUC of 0.970 is implausibly high; check for label "
        "leakage.",
    ),
    "single feature": (
        trained(drop=0.29),
        ShipDecision.DO_NOT_SHIP,
        Alarm,
        "Do not ship this model until its alarms are explained. cart_adds_30m carries the model by itself: without it "
        "the AUC drops by 0.290.",
    ),
}


@pytest.mark.parametrize(("model", "decision", "decisive", "opening"), CASES.values(), ids=CASES)
def test_a_decision_comes_with_its_decisive_reason_first(model, decision, decisive, opening):
    found = recommend(model)
    assert found.decision == decision
    assert type(found.reasons[0]) is decisive
    assert recommendation_text(found).startswith(opening)
    assert any(isinstance(reason, Holdout) for reason in found.reasons)


def test_every_decision_and_every_kind_of_reason_is_reached():
    models = [model for model, *_ in CASES.values()] + [
        trained(rule=rule(BETTER, acted_on=0.0)),
        trained(rule=rule(BETTER, auc=CHANCE_AUC)),
    ]
    found = [*map(recommend, models), recommend(trained(), champion(BETTER))]
    assert {one.decision for one in found} == set(ShipDecision)
    reasons = [reason for one in found for reason in one.reasons]
    assert {type(reason) for reason in reasons} == set(get_args(Reason))
    assert {alarm.kind for one in found for alarm in one.alarms} == set(AlarmKind)
    for kind, never in ((ComparedWithModel, set()), (ComparedWithRule, {ComparisonOutcome.SAME})):
        assert {reason.outcome for reason in reasons if isinstance(reason, kind)} == set(ComparisonOutcome) - never


def test_one_odd_holdout_decides_nothing():
    model = trained(**against(logistic=OPEN), differences={"logistic": {"roc_auc": WORSE}})
    assert recommend(model).decision == SHADOW


def test_alarms_come_before_anything_else():
    model = trained(Estimate(0.97, 0.96, 0.98), drop=0.29, rule=rule(WORSE), **against(logistic=WORSE))
    found = recommend(model)
    assert found.alarms == (
        Alarm(AlarmKind.IMPLAUSIBLE_AUC, 0.97),
        Alarm(AlarmKind.SINGLE_FEATURE, 0.29, "cart_adds_30m"),
    )
    assert found.reasons[:2] == found.alarms
    assert found.decision == ShipDecision.DO_NOT_SHIP


@given(
    auc=st.floats(0, 1),
    low=st.floats(0.4, 0.6),
    crossed=st.floats(0, 1),
    drop=st.floats(-1, 1),
    alone=st.floats(0.5, 1),
    alone_low=st.floats(0.4, 0.6),
)
def test_an_alarm_is_raised_at_its_limit(auc, low, crossed, drop, alone, alone_low):
    single = Estimate(alone, alone_low, 1)
    model = trained(Estimate(auc, low, 1), drop=drop, cross_validated_auc=crossed, single_auc=single)
    found = find_alarms(model.evaluation)
    kinds = {alarm.kind for alarm in found}
    assert (AlarmKind.IMPLAUSIBLE_AUC in kinds) == (auc >= IMPLAUSIBLE_AUC)
    limit = SINGLE_FEATURE_SHARE * (crossed - 0.5)
    is_strong = alone >= SINGLE_FEATURE_AUC and alone_low > 0.5
    assert (AlarmKind.SINGLE_FEATURE in kinds) == (limit > 0 and drop >= limit and is_strong and low > 0.5)


def test_a_model_that_cant_be_told_from_chance_raises_no_alarm_about_a_feature():
    """As on permuted labels: some feature always has most of a tiny AUC."""
    found = recommend(trained(CHANCE_AUC, drop=0.29))
    assert not found.alarms
    assert isinstance(found.reasons[0], ChanceLevel)


@pytest.mark.parametrize("model", [trained(users=3), trained(UNDEFINED, users=3), trained(users=3, rule=rule(WORSE))])
def test_too_few_users_are_named_once_whatever_the_decision(model):
    reasons = recommend(model).reasons
    assert [one for one in reasons if isinstance(one, FewPositiveUsers)] == [FewPositiveUsers(3, RELIABLE_USERS)]
    assert recommend(model).decision != ShipDecision.SHIP


@pytest.mark.parametrize("acted_on", [0.0, 1.0])
def test_a_rule_that_acts_on_nothing_or_on_everything_decides_nothing(acted_on):
    with_rule, without = recommend(trained(rule=rule(WORSE, acted_on))), recommend(trained())
    assert with_rule.decision == without.decision
    assert with_rule.reasons == (*without.reasons, RuleIsNoBaseline())
    assert "so it cannot serve as a baseline." in recommendation_text(with_rule)


def test_the_holdout_is_told_with_all_its_figures():
    (told,) = (reason_text(reason) for reason in recommend(trained()).reasons if isinstance(reason, Holdout))
    assert told == (
        "On the holdout, 1234 events of 140 users not used in training, the 10% of events with the highest scores "
        "contain 41% of the positives (lift 4.1); a positive outranks a negative 80% of the time (AUC 0.8000, 0.7500 "
        "to 0.8500); mean predicted 2.10%, observed 2.10%."
    )


# JSON


figures = st.floats(allow_nan=True, allow_infinity=True)
intervals = st.builds(Estimate, figures, figures, figures).map(Interval.of)
shares = st.none() | st.floats(0, 1)
REASONS = st.one_of(
    st.builds(Alarm, st.sampled_from(AlarmKind), st.floats(0, 1), st.none() | st.text()),
    st.builds(ChanceLevel, intervals),
    st.builds(ComparedWithModel, st.sampled_from(ComparisonOutcome), st.text(min_size=1), intervals),
    st.builds(NotCompared, st.just("x")),
    st.builds(
        ComparedWithRule,
        st.sampled_from(sorted(set(ComparisonOutcome) - {ComparisonOutcome.SAME})),
        shares,
        shares,
        shares,
        intervals,
    ),
    st.builds(RuleIsNoBaseline),
    st.builds(FewPositiveUsers, st.integers(0, 2**40), st.integers(0, 2**40)),
    st.builds(
        Holdout,
        events=st.integers(0, 2**40),
        users=st.integers(0, 2**40),
        top_share=st.floats(0, 1),
        top_recall=shares,
        top_lift=shares,
        auc=intervals,
        mean_predicted=shares,
        observed=shares,
    ),
)


@given(st.sampled_from(ShipDecision), st.lists(REASONS, min_size=1).map(tuple))
def test_a_recommendation_survives_json_and_can_be_told(decision, reasons):
    found = Recommendation(decision, reasons)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Recommendation) == found
    assert "nan" not in recommendation_text(Recommendation(decision, tuple(map(unnamed, reasons))))


def unnamed(reason: Reason) -> Reason:
    """Without names of hypothesis's, which may hold anything."""
    names = {"feature", "model"} & set(reason.__struct_fields__)
    return msgspec.structs.replace(reason, **dict.fromkeys(names, "x"))


def test_json_has_codes_for_programs():
    found = msgspec.to_builtins(recommend(trained(drop=0.29)))
    assert found["decision"] == "do_not_ship"
    alarm = {"code": "alarm", "kind": "single_feature", "value": 0.29, "feature": "cart_adds_30m"}
    assert found["reasons"][0] == alarm


@pytest.mark.parametrize("model", [model for model, *_ in CASES.values()], ids=CASES)
def test_a_recommendation_is_read_back_from_metrics(tmp_path, model):
    path = tmp_path / "metrics.json"
    path.write_bytes(msgspec.json.encode({"recommendation": recommend(model), "rows": {"holdout": 1}}))
    assert read_recommendation(path) == recommend(model)


@pytest.mark.parametrize(
    "content",
    ['{"verdict": "Ship it, in shadow first.", "alarms": []}', '{"recommendation": {"decision": "maybe"}}', "", None],
    ids=["of an earlier version", "of a later version", "empty", "missing"],
)
def test_metrics_without_a_readable_recommendation_are_one_line(tmp_path, content):
    path = tmp_path / "metrics.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RecommendationError, match="metrics.json: no recommendation that this version can read") as told:
        read_recommendation(path)
    assert "\n" not in str(told.value)


# Bias and variance


NARROW, WIDE = 0.0, WIDE_GAP + 0.01
SMALL = Estimate(0.001, -0.002, NEGLIGIBLE_GAIN - 0.001)


@pytest.mark.parametrize(
    ("gap", "gain", "limit", "told"),
    [
        (NARROW, BETTER, Limit.VARIANCE, "More users would help."),  # whatever the gap
        (WIDE, BETTER, Limit.VARIANCE, "More users would help. The gap is wide: the model overfits individual users"),
        (WIDE, OPEN, Limit.VARIANCE, "Whether more users help is not clear"),
        (WIDE, None, Limit.VARIANCE, "Whether more users help is not clear"),
        (NARROW, SMALL, Limit.BIAS, "So more users would hardly help"),
        (NARROW, WORSE, Limit.BIAS, "So more users would hardly help"),
        (NARROW, OPEN, Limit.UNCLEAR, "No data on what would help"),
        (NARROW, None, Limit.UNCLEAR, "No data on what would help"),
        (NARROW, UNDEFINED, Limit.UNCLEAR, "No data on what would help"),
    ],
)
def test_what_more_users_gained_goes_before_the_gap(gap, gain, limit, told):
    curve = SimpleNamespace(last_doubling=gain)
    found = diagnose(trained(training_auc=0.8 + gap, learning_curve=curve).evaluation)
    assert found.limit == limit
    text = diagnosis_text(found)
    assert told in text
    assert "0.800 on held-out users" in text
    assert ("doubling" in text) == (gain is not None)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Diagnosis) == found


def test_the_gain_of_the_last_doubling_has_its_interval():
    text = diagnosis_text(diagnose(trained().evaluation))
    assert (
        "The last doubling of the training users changed the AUC on held-out users by +0.020, -0.010 to +0.050." in text
    )


# The champion


def champion(gain: Estimate, fitted_rows: int = 0) -> SimpleNamespace:
    return SimpleNamespace(version="v1", fitted_rows=fitted_rows, differences={"roc_auc": gain})


@pytest.mark.parametrize(
    ("compared", "decision", "text"),
    [
        (champion(BETTER), ShipDecision.SHIP, "It is clearly better than the champion v1 on the same events"),
        (champion(OPEN), SHADOW, "It is not clearly better than the champion v1 on the same events (AUC difference"),
        (champion(WORSE), ShipDecision.DO_NOT_SHIP, "The champion v1 is clearly better on the same events"),
        (champion(WORSE, fitted_rows=7), SHADOW, "7 of them are from the time that the champion was trained on"),
        (champion(UNDEFINED), SHADOW, "It is not clearly better than the champion v1"),
    ],
)
def test_a_champion_that_is_clearly_better_stays(compared, decision, text):
    found = recommend(trained(), compared)
    assert found.decision == decision
    assert isinstance(next(one for one in found.reasons if "champion" in reason_text(one)), ComparedWithChampion)
    assert text in recommendation_text(found)


# A rule that is no better than chance


@pytest.mark.parametrize(("low", "is_chance"), [(0.48, True), (0.5, True), (0.51, False)])
def test_a_rule_that_anything_beats_is_named(low, is_chance):
    auc = Estimate(0.5 + abs(low - 0.5), low, 0.55)
    found = recommend(trained(rule=rule(BETTER, auc=auc)))
    reasons = [reason for reason in found.reasons if isinstance(reason, RuleIsChance)]
    assert bool(reasons) == is_chance
    assert ("almost any model beats it" in recommendation_text(found)) == is_chance
