"""Paired live AUC of a shadow and the champion on the same clicks."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from training.modeling.metrics import METRICS, Estimate, LabelledScores, difference, estimate
from udfs.contracts.outputs import Outcome, ShadowScores

AUC = {"roc_auc": METRICS["roc_auc"]}
Click = tuple[str, int, int]


@dataclass(frozen=True)
class ShadowQuality:
    """The live AUC of shadow and champion on the same clicks; the difference is paired by user."""

    rows: int
    positive_users: int
    shadow: Estimate
    champion: Estimate
    difference: Estimate  # shadow minus champion

    def __str__(self) -> str:
        gain = self.difference
        return (
            f"live AUC {self.shadow.value:.4f} against the champion's {self.champion.value:.4f} on {self.rows} clicks "
            f"({gain.value:+.4f}, {gain.low:+.4f} to {gain.high:+.4f})"
        )


def shadow_quality(
    outcomes: Iterable[Outcome], shadow_scores: Iterable[ShadowScores], shadow: str, champion: str
) -> ShadowQuality | None:
    """Join outcomes and shadow scores by user, partition and offset; each click counts once. None without a match.

    Clicks that the champion did not score, and those not evaluated by the label, are left out.
    """
    shadow_score: dict[Click, float] = {}
    for record in shadow_scores:
        if shadow in record.shadow_versions:
            shadow_score[_click(record)] = record.shadow_scores[record.shadow_versions.index(shadow)]
    outcome_of = {
        _click(record): record for record in outcomes if record.evaluated and record.model_version == champion
    }
    pairs = [(outcome, shadow_score[click]) for click, outcome in outcome_of.items() if click in shadow_score]
    if not pairs:
        return None
    labels = np.array([outcome.label for outcome, _ in pairs])
    _, user = np.unique([outcome.user_id for outcome, _ in pairs], return_inverse=True)
    weight = np.ones(len(pairs))
    ours = LabelledScores(labels, np.array([score for _, score in pairs]), weight, user)
    theirs = LabelledScores(labels, np.array([outcome.score for outcome, _ in pairs]), weight, user)
    return ShadowQuality(
        rows=len(pairs),
        positive_users=len(np.unique(user[labels])),
        shadow=estimate(ours, AUC)["roc_auc"],
        champion=estimate(theirs, AUC)["roc_auc"],
        difference=difference(ours, theirs, AUC)["roc_auc"],
    )


def _click(record: Outcome | ShadowScores) -> Click:
    return record.user_id, record.source_partition, record.source_offset
