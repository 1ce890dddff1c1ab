"""How good a shadow is on live traffic: what it and the champion said of the same clicks, and what came of them."""

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
    """Join by user, partition and offset; each click counts once. None where they have none in common.

    Clicks that another model than the champion scored, and those that the label is not for, are left out.
    """
    said: dict[Click, float] = {}
    for record in shadow_scores:
        if shadow in record.shadow_versions:
            said[_click(record)] = record.shadow_scores[record.shadow_versions.index(shadow)]
    came = {_click(one): one for one in outcomes if one.evaluated and one.model_version == champion}
    both = [(one, said[click]) for click, one in came.items() if click in said]
    if not both:
        return None
    labels = np.array([one.label for one, _ in both])
    _, user = np.unique([one.user_id for one, _ in both], return_inverse=True)
    weight = np.ones(len(both))
    ours = LabelledScores(labels, np.array([score for _, score in both]), weight, user)
    theirs = LabelledScores(labels, np.array([one.score for one, _ in both]), weight, user)
    return ShadowQuality(
        rows=len(both),
        positive_users=len(np.unique(user[labels])),
        shadow=estimate(ours, AUC)["roc_auc"],
        champion=estimate(theirs, AUC)["roc_auc"],
        difference=difference(ours, theirs, AUC)["roc_auc"],
    )


def _click(record: Outcome | ShadowScores) -> Click:
    return record.user_id, record.source_partition, record.source_offset
