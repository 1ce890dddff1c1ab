"""The recommendation whether to ship a model, as data: a decision, and its reasons with their figures.

`recommendation_text` renders it for people; gates and other programs read it from here or, through
`read_recommendation`, from metrics.json.
"""

from enum import StrEnum
from math import isfinite
from pathlib import Path

import msgspec

from training.bundles.trainer import TrainedModel
from training.data.summary import RELIABLE_USERS
from training.evaluation.champion import ChampionComparison
from training.evaluation.holdout import Evaluation
from training.evaluation.rule_baseline import RuleBaseline
from training.modeling.metrics import Estimate

IMPLAUSIBLE_AUC = 0.95
#: Share of the AUC above chance that is lost when a single feature is shuffled.
SINGLE_FEATURE_SHARE = 0.8
#: The AUC that such a feature must reach by itself. A model that knows little may get most of that from any feature.
SINGLE_FEATURE_AUC = 0.65
#: Between the AUC on training users and on held-out users.
WIDE_GAP = 0.05
#: A gain in AUC that is not worth twice the users.
NEGLIGIBLE_GAIN = 0.005


class ShipDecision(StrEnum):
    """The decision on a model."""

    SHIP = "ship"
    SHIP_IN_SHADOW = "ship_in_shadow"  # or in an A/B test: not yet instead of the model that serves today
    DO_NOT_SHIP = "do_not_ship"


class AlarmKind(StrEnum):
    """Signs of label leakage."""

    IMPLAUSIBLE_AUC = "implausible_auc"
    SINGLE_FEATURE = "single_feature"


class ComparisonOutcome(StrEnum):
    """The result of a comparison with a baseline."""

    WORSE = "worse"  # against the rule: no better
    INCONCLUSIVE = "inconclusive"  # the interval of the difference includes 0
    SAME = "same"  # the model is that baseline
    BETTER = "better"


class Interval(msgspec.Struct, frozen=True):
    """An `Estimate` that survives JSON: undefined figures are None, as JSON has no NaN."""

    value: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, estimate: Estimate) -> "Interval":
        return cls(*map(_defined, (estimate.value, estimate.low, estimate.high)))


class _Reason(msgspec.Struct, frozen=True, tag_field="code"):
    pass


class Alarm(_Reason, tag="alarm"):
    """A sign of label leakage: `value` is the AUC, or the drop of the AUC without `feature`."""

    kind: AlarmKind
    value: float
    feature: str | None = None


class ChanceLevel(_Reason, tag="chance_level"):
    """The AUC is not clearly above 0.5."""

    auc: Interval


class ComparedWithModel(_Reason, tag="compared_with_model"):
    """Another kind of model on the same new users; the difference is the AUC of this training minus the other's.

    It is the mean over `repeats` x `folds` outer folds, in each of which the whole training was run anew.
    """

    outcome: ComparisonOutcome
    model: str
    auc_difference: Interval
    repeats: int = 0
    folds: int = 0


class NotCompared(_Reason, tag="not_compared"):
    """The training was not compared with other models on new users, for instance because there are too few."""

    why: str


class ComparedWithRule(_Reason, tag="compared_with_rule"):
    """The hand-written rule, with both acting on the same share of events; differences are model minus rule."""

    outcome: ComparisonOutcome
    acted_on: float | None
    model_recall: float | None
    rule_recall: float | None
    recall_difference: Interval


class ComparedWithChampion(_Reason, tag="compared_with_champion"):
    """The model that serves, on the same events; the difference is the AUC of the new model minus the champion's.

    Where `fitted_rows` of the events favour the champion, a worse AUC is inconclusive.
    """

    outcome: ComparisonOutcome
    version: str
    auc_difference: Interval
    fitted_rows: int = 0


class RuleIsNoBaseline(_Reason, tag="rule_is_no_baseline"):
    """The rule acts on all holdout events or on none of them."""


class RuleIsChance(_Reason, tag="rule_is_chance"):
    """The rule finds positives no more often than chance, so that to beat it proves little."""

    auc: Interval


class FewPositiveUsers(_Reason, tag="few_positive_users"):
    """Too few holdout users have a positive label for reliable figures."""

    users: int
    wanted: int


class Holdout(_Reason, tag="holdout"):
    """Performance on the holdout, for those who would act on the scores."""

    events: int
    users: int
    top_share: float  # of the events, those with the highest scores
    top_recall: float | None  # the share of all positives among these
    top_lift: float | None
    auc: Interval
    mean_predicted: float | None
    observed: float | None


Reason = (
    Alarm
    | ChanceLevel
    | ComparedWithModel
    | NotCompared
    | ComparedWithRule
    | ComparedWithChampion
    | RuleIsNoBaseline
    | RuleIsChance
    | FewPositiveUsers
    | Holdout
)


class Recommendation(msgspec.Struct, frozen=True):
    """A decision and its reasons, the decisive ones first."""

    decision: ShipDecision
    reasons: tuple[Reason, ...]

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        return tuple(reason for reason in self.reasons if isinstance(reason, Alarm))


class RecommendationError(ValueError):
    """A metrics.json without a recommendation that this version can read."""


class _Metrics(msgspec.Struct):
    recommendation: Recommendation


def read_recommendation(path: Path) -> Recommendation:
    """Return the recommendation in a metrics.json. Raises RecommendationError, also for files of earlier versions."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Metrics).recommendation
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RecommendationError(
            f"{path}: no recommendation that this version can read, an earlier one may have written it: {error}"
        ) from None


def recommend(trained: TrainedModel, champion: ChampionComparison | None = None) -> Recommendation:
    """Decide whether to ship a model, from its evaluation on the holdout and in repeated cross-validation."""
    decision, decisive = _decide(trained, champion)
    reasons = [*decisive, _holdout(trained.evaluation)]
    rule, few = trained.evaluation.rule, _few_positive_users(trained)
    if rule and not rule.chooses:
        reasons.append(RuleIsNoBaseline())
    elif rule and rule.metrics["roc_auc"].low <= 0.5:
        reasons.append(RuleIsChance(Interval.of(rule.metrics["roc_auc"])))
    if few and few not in reasons:
        reasons.append(few)
    return Recommendation(decision, tuple(reasons))


def find_alarms(evaluation: Evaluation) -> tuple[Alarm, ...]:
    """Return the signs of label leakage: an implausibly high AUC, and one feature that carries the model.

    Where the model can't be told from chance, nothing carries it: any feature may have most of its small AUC.
    """
    alarms = []
    auc = evaluation.metrics["roc_auc"].value
    if auc >= IMPLAUSIBLE_AUC:
        alarms.append(Alarm(AlarmKind.IMPLAUSIBLE_AUC, auc))
    feature, drop = evaluation.importance[0]
    alone = evaluation.single_auc
    is_strong = alone.value >= SINGLE_FEATURE_AUC and alone.low > 0.5
    is_most_of_it = drop >= SINGLE_FEATURE_SHARE * (evaluation.cross_validated_auc - 0.5) > 0
    if is_strong and is_most_of_it and _is_above_chance(evaluation):
        alarms.append(Alarm(AlarmKind.SINGLE_FEATURE, drop, feature))
    return tuple(alarms)


def _auc(evaluation: Evaluation) -> Estimate:
    """The AUC on new users: the repeated estimate, or else that of the holdout."""
    measured = evaluation.repeated
    return (evaluation if isinstance(measured, str) else measured).metrics["roc_auc"]


def _is_above_chance(evaluation: Evaluation) -> bool:
    return _auc(evaluation).low > 0.5


def _decide(trained: TrainedModel, champion: ChampionComparison | None) -> tuple[ShipDecision, tuple[Reason, ...]]:
    """The decision, with the reasons that led to it."""
    evaluation = trained.evaluation
    if alarms := find_alarms(evaluation):
        return ShipDecision.DO_NOT_SHIP, alarms
    if not _is_above_chance(evaluation):
        return ShipDecision.DO_NOT_SHIP, (ChanceLevel(Interval.of(_auc(evaluation))),)
    comparisons = (*_comparisons(evaluation), *([_compared_with_champion(champion)] if champion else []))
    for outcome, decision in (
        (ComparisonOutcome.WORSE, ShipDecision.DO_NOT_SHIP),
        (ComparisonOutcome.INCONCLUSIVE, ShipDecision.SHIP_IN_SHADOW),
    ):
        for comparison in comparisons:
            if comparison.outcome == outcome:
                return decision, (comparison,)
    if evaluation.compared and isinstance(evaluation.repeated, str):
        return ShipDecision.SHIP_IN_SHADOW, (NotCompared(evaluation.repeated), *comparisons)
    if few := _few_positive_users(trained):
        return ShipDecision.SHIP_IN_SHADOW, (few, *comparisons)
    return ShipDecision.SHIP, comparisons


def _comparisons(evaluation: Evaluation) -> tuple[ComparedWithRule | ComparedWithModel, ...]:
    """Compare the model with each usable baseline, the rule first.

    Other models are compared in repeated cross-validation only: one holdout has no variance of training in its
    interval, and may be the odd one out.
    """
    rule, repeated = evaluation.rule, evaluation.repeated
    with_rule = [_compared_with_rule(rule)] if rule and rule.chooses else []
    if isinstance(repeated, str):
        return tuple(with_rule)
    with_models = [
        ComparedWithModel(
            ComparisonOutcome.SAME if model == evaluation.model else outcome_of(measures["roc_auc"]),
            model,
            Interval.of(measures["roc_auc"]),
            repeated.repeats,
            repeated.folds,
        )
        for model, measures in repeated.differences.items()
    ]
    return (*with_rule, *with_models)


def outcome_of(difference: Estimate) -> ComparisonOutcome:
    """What a difference, model minus baseline, says."""
    if difference.high < 0:
        return ComparisonOutcome.WORSE
    return ComparisonOutcome.BETTER if difference.low > 0 else ComparisonOutcome.INCONCLUSIVE


def _compared_with_rule(rule: RuleBaseline) -> ComparedWithRule:
    difference = rule.differences["recall"]
    if not difference.value > 0:
        outcome = ComparisonOutcome.WORSE  # a rule is cheaper to run: to be as good is not enough
    else:
        outcome = ComparisonOutcome.BETTER if difference.low > 0 else ComparisonOutcome.INCONCLUSIVE
    return ComparedWithRule(
        outcome=outcome,
        acted_on=_defined(rule.acted_on.value),
        model_recall=_defined(rule.model_recall.value),
        rule_recall=_defined(rule.recall.value),
        recall_difference=Interval.of(difference),
    )


def _compared_with_champion(champion: ChampionComparison) -> ComparedWithChampion:
    difference = champion.differences["roc_auc"]
    outcome = outcome_of(difference)
    if champion.fitted_rows and outcome == ComparisonOutcome.WORSE:
        outcome = ComparisonOutcome.INCONCLUSIVE
    return ComparedWithChampion(outcome, champion.version, Interval.of(difference), champion.fitted_rows)


def _holdout(evaluation: Evaluation) -> Holdout:
    metrics, top = evaluation.metrics, evaluation.gains[0]
    return Holdout(
        events=evaluation.rows["holdout"],
        users=evaluation.users["holdout"],
        top_share=top["share"],
        top_recall=_defined(top["gain"].value),
        top_lift=_defined(top["lift"].value),
        auc=Interval.of(metrics["roc_auc"]),
        mean_predicted=_defined(metrics["mean_probability"].value),
        observed=_defined(metrics["positive_rate"].value),
    )


def _few_positive_users(trained: TrainedModel) -> FewPositiveUsers | None:
    users = int(trained.manifest.metrics["test_positive_users"])
    return FewPositiveUsers(users, RELIABLE_USERS) if users < RELIABLE_USERS else None


def _defined(figure: float) -> float | None:
    return float(figure) if isfinite(figure) else None


class Limit(StrEnum):
    """The limitation of a model: what would improve it."""

    VARIANCE = "variance"  # more users
    BIAS = "bias"  # other features, or a larger model
    UNCLEAR = "unclear"  # the data is too little to tell


class Diagnosis(msgspec.Struct, frozen=True):
    """Whether more users or a larger model would help, by the AUC on training users and on held-out ones."""

    limit: Limit
    training_auc: float
    held_out_auc: float
    last_doubling: Interval | None  # AUC gained on held-out users

    @property
    def is_wide(self) -> bool:
        """Whether the gap between training and held-out users is wide."""
        return self.training_auc - self.held_out_auc > WIDE_GAP


def diagnose(evaluation: Evaluation) -> Diagnosis:
    """Tell variance from bias by what the last doubling of the users gained, or else by the gap to training users.

    Measured gain goes before the gap: a model with a small gap may still improve with users.
    """
    gain = evaluation.learning_curve.last_doubling
    found = Diagnosis(
        limit=Limit.UNCLEAR,
        training_auc=evaluation.training_auc,
        held_out_auc=evaluation.cross_validated_auc,
        last_doubling=None if gain is None else Interval.of(gain),
    )
    if (gain is not None and gain.low > 0) or found.is_wide:
        return msgspec.structs.replace(found, limit=Limit.VARIANCE)
    if gain is not None and gain.high < NEGLIGIBLE_GAIN:
        return msgspec.structs.replace(found, limit=Limit.BIAS)
    return found
