"""Recommendations as text, for reports and terminals."""

from functools import singledispatch

import msgspec

from training.reporting.recommendation import (
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
    RuleIsChance,
    RuleIsNoBaseline,
    ShipDecision,
)

#: Display names of the kinds of models.
NAMES = {
    "xgboost": "XGBoost",
    "logistic": "logistic regression",
    "lightgbm": "LightGBM",
    "blend": "the blend of XGBoost and logistic regression",
    "gru": "a sequence model (GRU)",
}


def recommendation_text(recommendation: Recommendation) -> str:
    """Render a recommendation as a paragraph, the decision first."""
    return " ".join([_opening(recommendation), *map(reason_text, recommendation.reasons)])


def _opening(recommendation: Recommendation) -> str:
    if recommendation.alarms:
        return "Do not ship this model until its alarms are explained."
    if recommendation.decision == ShipDecision.DO_NOT_SHIP:
        return "Do not ship this model."
    if recommendation.decision == ShipDecision.SHIP:
        return "Ship this model, in shadow first."
    if isinstance(recommendation.reasons[0], FewPositiveUsers):
        return "Run this model in shadow only."
    return "Run this model only in shadow or in an A/B test."


@singledispatch
def reason_text(reason: Reason) -> str:
    """Render one reason as one or two sentences."""
    raise TypeError(f"unknown reason: {reason!r}")


@reason_text.register
def _alarm(reason: Alarm) -> str:
    if reason.kind == AlarmKind.IMPLAUSIBLE_AUC:
        return f"This AUC of {reason.value:.3f} is implausibly high; check for label leakage."
    return (
        f"{reason.feature} carries the model by itself: without it the AUC drops by {reason.value:.3f}. "
        "Check whether this feature leaks the label."
    )


@reason_text.register
def _chance_level(reason: ChanceLevel) -> str:
    return (
        f"It can't be told from chance: its AUC ({_range(reason.auc, '.4f')}) is not clearly above 0.5. Try more data "
        "or another label."
    )


_THAN_MODEL = {
    ComparisonOutcome.WORSE: "{model}, trained on the same events, is clearly better on new users (AUC difference "
    "{difference}). More users or a hyperparameter search may change that.",
    ComparisonOutcome.INCONCLUSIVE: "On new users there is no clear difference to {model} (AUC difference "
    "{difference}).",
    ComparisonOutcome.BETTER: "On new users it is clearly better than {model} (AUC difference {difference}).",
    ComparisonOutcome.SAME: "It is {model} itself, so there is no simpler model to prefer (the training as a whole "
    "differs from it in AUC by {difference}).",
}


@reason_text.register
def _compared_with_model(reason: ComparedWithModel) -> str:
    difference = _range(reason.auc_difference, "+.3f")
    if reason.repeats:
        difference += f", in {reason.repeats} x {reason.folds} folds of users"
    text = _THAN_MODEL[reason.outcome].format(model=NAMES.get(reason.model, reason.model), difference=difference)
    return text[0].upper() + text[1:]


@reason_text.register
def _not_compared(reason: NotCompared) -> str:
    return f"It has not been compared with simpler models on new users: {reason.why}."


_THAN_RULE = {
    ComparisonOutcome.WORSE: "It is no better than the rule",
    ComparisonOutcome.INCONCLUSIVE: "It is not clearly better than the rule",
    ComparisonOutcome.BETTER: "It is better than the rule",
}


@reason_text.register
def _compared_with_rule(reason: ComparedWithRule) -> str:
    return (
        f"{_THAN_RULE[reason.outcome]}: when both act on {_percent(reason.acted_on, 1)} of the events, the model's "
        f"recall is {_percent(reason.model_recall)} and the rule's {_percent(reason.rule_recall)} (difference in "
        f"percentage points {_range(_scaled(reason.recall_difference, 100), '+.1f')})."
    )


_THAN_CHAMPION = {
    ComparisonOutcome.WORSE: "The champion {version} is clearly better on the same events",
    ComparisonOutcome.INCONCLUSIVE: "It is not clearly better than the champion {version} on the same events",
    ComparisonOutcome.BETTER: "It is clearly better than the champion {version} on the same events",
}


@reason_text.register
def _compared_with_champion(reason: ComparedWithChampion) -> str:
    text = _THAN_CHAMPION[reason.outcome].format(version=reason.version)
    text += f" (AUC difference {_range(reason.auc_difference, '+.3f')})."
    if reason.fitted_rows:
        text += f" {reason.fitted_rows} of them are from the time that the champion was trained on, which favours it."
    return text


@reason_text.register
def _rule_is_no_baseline(_reason: RuleIsNoBaseline) -> str:
    return "The rule acts on all of these events or on none, so it cannot serve as a baseline."


@reason_text.register
def _rule_is_chance(reason: RuleIsChance) -> str:
    return (
        f"The rule itself can't be told from chance (AUC {_range(reason.auc, '.4f')}): almost any model beats it, so "
        "the comparison with it proves little."
    )


@reason_text.register
def _few_positive_users(reason: FewPositiveUsers) -> str:
    return (
        f"Only {reason.users} holdout users have a positive label; figures are unreliable with fewer than "
        f"{reason.wanted}."
    )


@reason_text.register
def _holdout(reason: Holdout) -> str:
    return (
        f"On the holdout, {reason.events} events of {reason.users} users not used in training, the "
        f"{_percent(reason.top_share)} of events with the highest scores contain {_percent(reason.top_recall)} of the "
        f"positives (lift {_number(reason.top_lift, '.1f')}); a positive outranks a negative "
        f"{_percent(reason.auc.value)} of the time (AUC {_range(reason.auc, '.4f')}); mean predicted "
        f"{_percent(reason.mean_predicted, 2)}, observed {_percent(reason.observed, 2)}."
    )


def diagnosis_text(diagnosis: Diagnosis) -> str:
    """Render what would improve the model."""
    return " ".join(
        [
            f"The AUC is {diagnosis.training_auc:.3f} on training users and {diagnosis.held_out_auc:.3f} on held-out "
            "users.",
            *_gain_texts(diagnosis.last_doubling),
            _limit_text(diagnosis),
        ]
    )


def _gain_texts(gain: Interval | None) -> list[str]:
    if gain is None:
        return []
    return [f"The last doubling of the training users changed the AUC on held-out users by {_range(gain, '+.3f')}."]


def _limit_text(diagnosis: Diagnosis) -> str:
    gain = diagnosis.last_doubling
    if diagnosis.limit == Limit.BIAS:
        return (
            "So more users would hardly help; other features or a larger model may (bias): the gap is small, and so is "
            "what the last users gained."
        )
    if diagnosis.limit == Limit.UNCLEAR:
        return "No data on what would help: the gap is small, and whether more users help is not clear from these ones."
    gap = "The gap is wide: the model overfits individual users, so fewer features may help."
    if gain is None or not (gain.low or 0) > 0:
        return f"{gap} Whether more users help is not clear from these ones."
    return "More users would help." + (f" {gap}" if diagnosis.is_wide else "")


def _number(figure: float | None, form: str) -> str:
    return "undefined" if figure is None else f"{figure:{form}}"


def _range(interval: Interval, form: str) -> str:
    """The value, then its interval."""
    value, low, high = (_number(figure, form) for figure in (interval.value, interval.low, interval.high))
    return f"{value}, {low} to {high}"


def _scaled(interval: Interval, factor: float) -> Interval:
    return Interval(*(None if figure is None else factor * figure for figure in msgspec.structs.astuple(interval)))


def _percent(share: float | None, digits: int = 0) -> str:
    return "undefined" if share is None else f"{100 * share:.{digits}f}%"
