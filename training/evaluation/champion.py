"""A new model beside the champion, on rows of the holdout."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from training.data.examples import Examples
from training.modeling.metrics import METRICS, Estimate, LabelledScores, difference, estimate
from training.modeling.model_selection import scored
from udfs.features.declaration import Declaration, merged
from udfs.models.backends import Scorer
from udfs.models.bundle import Bundle, Manifest
from udfs.models.remote import RemoteError


@dataclass(frozen=True)
class ChampionComparison:
    """Both models on the same rows; intervals resample users, and differences (model minus champion) are paired."""

    version: str  # of the champion
    rows: int
    fitted_rows: int  # of these, those from the time that the champion was fitted to, which favour it
    model: LabelledScores
    champion: LabelledScores
    model_metrics: dict[str, Estimate]
    champion_metrics: dict[str, Estimate]
    differences: dict[str, Estimate]


def compare_with_champion(
    holdout: Examples, probability: np.ndarray, declaration: Declaration, champion: Bundle, positive_users: int
) -> ChampionComparison | str:
    """Compare a model's scores of the holdout, float64[rows], with the champion's; or say why there is no data.

    The holdout has all features of the champion, `declaration` those of the new model. The rows compared are those of
    `unseen_rows`.
    """
    rows, fitted_rows = unseen_rows(holdout, champion.manifest, positive_users)
    compared = holdout.take(rows)
    _, (names,) = merged(declaration, [champion.declaration])
    try:
        theirs = scored(compared, served_probability(champion, compared, names))
    except RemoteError as error:
        return f"the champion does not answer: {error}"
    ours = scored(compared, probability[rows])
    return ChampionComparison(
        version=champion.manifest.version,
        rows=len(rows),
        fitted_rows=fitted_rows,
        model=ours,
        champion=theirs,
        model_metrics=estimate(ours),
        champion_metrics=estimate(theirs),
        differences=difference(ours, theirs, METRICS),
    )


def unseen_rows(rows: Examples, champion: Manifest, positive_users: int) -> tuple[np.ndarray, int]:
    """The places, int64[k], of the rows to compare a candidate with a champion on, and how many favour the champion.

    They are those whose time is more than a horizon after the end of the champion's training window. If these have
    fewer than `positive_users` users with a positive label, all rows are taken: those from the time that the champion
    was fitted to favour it, so that no candidate passes that would not pass otherwise.
    """
    end_ms = champion.training_window.end.timestamp() * 1_000
    is_new = rows.time_ms > end_ms + champion.label.horizon_ms
    labels = rows.labels[is_new]
    if len(np.unique(rows.user[is_new][labels])) >= positive_users and not labels.all():
        return np.flatnonzero(is_new), 0
    return np.arange(len(rows)), int((rows.time_ms <= end_ms).sum())


def served_probability(bundle: Bundle, rows: Examples, names: Mapping[str, str]) -> np.ndarray:
    """The scores of the rows, float64[rows], by the functions that serve; `names` are what its features are called.

    Raises RemoteError when a model that another process serves does not answer.
    """
    columns = [rows.names.index(names[name]) for name in bundle.manifest.features]
    return Scorer(bundle).predict(np.ascontiguousarray(rows.features[:, columns])).astype(np.float64)
