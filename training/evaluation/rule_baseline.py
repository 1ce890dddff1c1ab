"""A hand-written rule as a baseline, compared on the holdout with the model acting equally often.

A rule decides, a model ranks: precision and recall can be compared only where both act on the same share of events.
"""

from dataclasses import dataclass

import numpy as np

from training.data.examples import Examples
from training.modeling.metrics import RANKING, Estimate, LabelledScores, difference, estimate, with_intervals
from training.modeling.model_selection import scored
from udfs.features.declaration import Declaration
from udfs.rollout.rules import Rule, matches


@dataclass(frozen=True)
class RuleBaseline:
    """Metrics of the rule and of the model acting on the same share of events; differences are model minus rule."""

    rule: Rule
    metrics: dict[str, Estimate]  # of the rule as a score of 0 or 1: those of RANKING
    acted_on: Estimate  # share of the events that the rule acts on
    precision: Estimate
    recall: Estimate
    model_precision: Estimate
    model_recall: Estimate
    differences: dict[str, Estimate]  # those of RANKING, precision, recall

    @property
    def chooses(self) -> bool:
        """Whether it acts on some events but not on all. Otherwise it is no baseline."""
        return 0 < self.acted_on.value < 1


def measure_rule(rule: Rule, declaration: Declaration, holdout: Examples, model: LabelledScores) -> RuleBaseline:
    """Compare the rule with the model's scores on a holdout whose declared features include the rule's."""
    acts = matches(rule, holdout.names, holdout.features, declaration)
    return compare_with_rule(rule, scored(holdout, acts.astype(float)), model)


def compare_with_rule(rule: Rule, decisions: LabelledScores, model: LabelledScores, seed: int = 1) -> RuleBaseline:
    """Compare a rule's decisions, as scores of 0 and 1, with a model's scores of the same rows; paired by user."""

    def measured(weights: tuple[np.ndarray, np.ndarray]) -> list[float]:
        share, rate = decisions.mean_probability(weights[0]), decisions.rate(weights[0])
        recalls = [scored.recall(weight, np.array([share]))[0] for scored, weight in zip((decisions, model), weights)]
        # Of a share s of the rows, a share r of the positives: precision is r times the rate of positives over s.
        precisions = [recall * rate / share if share else np.nan for recall in recalls]
        return [share, *precisions, precisions[1] - precisions[0], *recalls, recalls[1] - recalls[0]]

    acted_on, precision, model_precision, precision_gain, recall, model_recall, recall_gain = with_intervals(
        measured, (decisions.weight, model.weight), zip(decisions.redrawn(seed), model.redrawn(seed))
    )
    return RuleBaseline(
        rule=rule,
        metrics=estimate(decisions, RANKING, seed),
        acted_on=acted_on,
        precision=precision,
        recall=recall,
        model_precision=model_precision,
        model_recall=model_recall,
        differences={
            **difference(model, decisions, RANKING, seed),
            "precision": precision_gain,
            "recall": recall_gain,
        },
    )


def describe_rule(rule: Rule) -> str:
    """The rule as text: its conditions joined by `and` and `or`."""
    parts = rule.all or rule.any
    texts = [f"({describe_rule(part)})" if isinstance(part, Rule) else part for part in parts]
    return (" and " if rule.all else " or ").join(texts)
