"""What to conclude from an evaluation, in words: whether to ship the model, and what would make it better."""

from training.rule_baseline import RuleBaseline
from training.trainer import TrainedModel

TOO_GOOD_AUC = 0.95
ONE_FEATURE_SHARE = 0.8  # of what the AUC is above chance, lost without a single feature
WIDE_GAP = 0.05  # between the AUC on seen and on held-out users
#: With fewer users who have a positive label, chance moves the AUC by several hundredths.
RELIABLE_USERS = 50
NAMES = {"xgboost": "XGBoost", "logistic": "logistic regression", "lightgbm": "LightGBM"}


def alarms(trained: TrainedModel) -> list[str]:
    """Signs that a feature knows the label: too good to be true, or one feature carrying everything."""
    evaluation = trained.evaluation
    auc = evaluation.metrics["roc_auc"].value
    found = []
    if auc >= TOO_GOOD_AUC:
        found.append(
            f"The AUC of {auc:.3f} is too good: people are not that predictable. Look for a leak of the label."
        )
    name, lost = evaluation.importance[0]
    if lost >= ONE_FEATURE_SHARE * (evaluation.cross_validated_auc - 0.5) > 0:
        found.append(f"{name} alone carries the model: without it the AUC falls by {lost:.3f}. Does it know the label?")
    return found


def verdict(trained: TrainedModel) -> str:
    """One paragraph that says whether to ship the model, and why."""
    evaluation = trained.evaluation
    auc = evaluation.metrics["roc_auc"]
    told = _evidence(trained)
    if found := alarms(trained):
        return f"Do not ship this model before its alarm is explained. {' '.join(found)} {told}"
    if not auc.low > 0.5:
        return f"Do not ship: this model can't be told from chance. {told} Use more data, or another label."
    rule = evaluation.rule if evaluation.rule and evaluation.rule.chooses else None
    if rule and not rule.differences["recall"].value > 0:
        return f"Do not ship: the rule finds no less than this model. {_beside_rule(rule)} {told}"
    gains = {NAMES[name]: found["roc_auc"] for name, found in evaluation.differences.items()}
    for name, gain in gains.items():
        if gain.high < 0:
            return (
                f"Do not ship: {name}, trained on the same events for comparison, ranks better, by "
                f"{-gain.value:.3f} of AUC ({-gain.high:.3f} to {-gain.low:.3f}). {told} More users, or a search for "
                "parameters, may change that."
            )
    in_doubt = "Ship only beside what serves today, in shadow or an A/B test: the model is not clearly better than "
    if rule and not rule.differences["recall"].low > 0:
        return f"{in_doubt}the rule. {_beside_rule(rule)} {told}"
    for name, gain in gains.items():
        if gain.low <= 0:
            return f"{in_doubt}{name} (AUC {gain.value:+.3f}, {gain.low:+.3f} to {gain.high:+.3f}). {told}"
    beaten = [
        f"It ranks better than {name}, by {gain.value:.3f} of AUC ({gain.low:.3f} to {gain.high:.3f})."
        for name, gain in gains.items()
    ]
    if rule:
        beaten.append(_beside_rule(rule))
    opening = "Ship it, in shadow first."
    if _buyers(trained) < RELIABLE_USERS:
        opening = "Ship only beside what serves today, in shadow: there were too few users to be sure."
    return " ".join([opening, *beaten, told])


def _beside_rule(rule: RuleBaseline) -> str:
    """What both find when they act on as many events."""
    gain = rule.differences["recall"]
    return (
        f"Acting on as many events as the rule, {rule.acted_on.value:.1%}, it reaches {rule.model_recall.value:.0%} of "
        f"the positives and the rule {rule.recall.value:.0%} ({gain.value:+.1%}, {gain.low:+.1%} to {gain.high:+.1%})."
    )


def _evidence(trained: TrainedModel) -> str:
    """How good it is on the holdout, for those who would act on the scores."""
    evaluation, metrics = trained.evaluation, trained.evaluation.metrics
    top = evaluation.gains[0]
    told = (
        f"On {evaluation.rows['holdout']} events of {evaluation.users['holdout']} users that nothing before had looked "
        f"at, the {top['share']:.0%} of events with the highest scores have {top['gain'].value:.0%} of the positives, "
        f"{top['lift'].value:.1f} times as many as chance would give them; a positive scores above a negative "
        f"{metrics['roc_auc'].value:.0%} of the time (AUC {metrics['roc_auc']}); scores say "
        f"{metrics['mean_probability'].value:.2%} on average, {metrics['positive_rate'].value:.2%} came true."
    )
    if evaluation.rule and not evaluation.rule.chooses:
        told += " The rule acts on all or none of these events, so it says nothing of the model."
    if _buyers(trained) < RELIABLE_USERS:
        told += (
            f" Only {_buyers(trained):.0f} of these users have a positive: too few to rely on any of this, want "
            f"{RELIABLE_USERS} or more."
        )
    return told


def _buyers(trained: TrainedModel) -> float:
    return trained.manifest.metrics["test_positive_users"]


def bias_or_variance(trained: TrainedModel) -> str:
    """What the learning curve says, in words."""
    evaluation = trained.evaluation
    gap = evaluation.training_auc - evaluation.cross_validated_auc
    words = (
        f"On users that it has seen the AUC is {evaluation.training_auc:.3f}, on held-out ones "
        f"{evaluation.cross_validated_auc:.3f}. "
    )
    if gap > WIDE_GAP:
        words += "The gap says variance: the model learns its users by heart; more users or fewer features would help."
    else:
        words += "The small gap says bias, if anything: other features or a larger model would help, more users hardly."
    points = evaluation.learning_curve
    if len(points) > 1:
        gained = points[-1]["held_out"] - points[-2]["held_out"]
        words += f" The last doubling of users brought {gained:+.3f} of AUC."
    return words
