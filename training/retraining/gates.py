"""Gates that a candidate must pass to enter shadow, in a comparison with the champion on the newest matured data.

A model is better on rows that it was fitted to, so the two are compared on rows that neither was fitted to. A candidate
that serves may have been refitted to all rows; it is represented by the model from before, which has not seen the
newest ones. The champion was fitted to rows up to the end of its training window.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from msgspec.structs import replace

from training.data.examples import Examples
from training.evaluation.champion import served_probability, unseen_rows
from training.modeling.metrics import METRICS, Estimate, LabelledScores, difference, estimate
from training.modeling.model_selection import scored
from training.reporting.recommendation import Alarm
from training.reporting.recommendation_text import reason_text
from training.retraining.run_store import Gate
from training.retraining.settings import GateSettings
from training.rollout.admission import METRIC, HoldoutError, check_bundle, check_holdout
from udfs.features.declaration import merged
from udfs.models.bundle import Bundle, BundleError, Manifest

AUC = {"roc_auc": METRICS["roc_auc"]}


class FittedRowsError(ValueError):
    """A candidate that was fitted to rows that it would be compared on."""


@dataclass(frozen=True)
class ModelComparison:
    """Candidate and champion on the same rows; intervals resample users, differences are paired by user."""

    rows: int
    positive_users: int
    candidate: Estimate  # of the AUC
    champion: Estimate
    difference: Estimate  # of the AUC, candidate minus champion
    calibration: Estimate  # the candidate's mean score by the positive rate
    champions: int = 0  # of the rows: from the time that the champion was fitted to

    def __str__(self) -> str:
        gain = self.difference
        return (
            f"AUC {self.candidate.value:.4f} against the champion's {self.champion.value:.4f} on {self.rows} events "
            f"({gain.value:+.4f}, {gain.low:+.4f} to {gain.high:+.4f})"
        ) + (
            f"; {self.champions} of them are from the time that the champion was trained on, which favours it"
            if self.champions
            else ""
        )


def compare_models(rows: Examples, candidate: Bundle, champion: Bundle, positive_users: int = 1) -> ModelComparison:
    """Compare both models on the same ones of the rows, which have all features of both, by the functions that serve.

    They are those of `unseen_rows`. Raises FittedRowsError when the candidate was fitted to rows of that time,
    RemoteError when a model that another process serves does not answer.
    """
    window = candidate.manifest.training_window
    if window.end.timestamp() * 1_000 >= rows.time_ms.min():
        raise FittedRowsError(
            f"{candidate.manifest.version} was trained on events up to {window.end}, and the events to compare it on "
            "begin earlier: compare the model from before the refit"
        )
    unseen, champions = unseen_rows(rows, champion.manifest, positive_users)
    rows = rows.take(unseen)
    bundles = candidate, champion
    _, names = merged(candidate.declaration, [bundle.declaration for bundle in bundles])
    ours, theirs = (scored(rows, served_probability(bundle, rows, called)) for bundle, called in zip(bundles, names))
    measured = estimate(ours, AUC | {"calibration": _mean_score_by_rate})
    return ModelComparison(
        rows=len(rows),
        positive_users=len(np.unique(rows.user[rows.labels])),
        candidate=measured["roc_auc"],
        champion=estimate(theirs, AUC)["roc_auc"],
        difference=difference(ours, theirs, AUC)["roc_auc"],
        calibration=measured["calibration"],
        champions=champions,
    )


def _mean_score_by_rate(rows: LabelledScores, weight: np.ndarray) -> float:
    rate = rows.rate(weight)
    return rows.mean_probability(weight) / rate if rate else float("nan")


def judge(
    compared: ModelComparison, candidate: Bundle, champion: Manifest, alarms: Sequence[Alarm], settings: GateSettings
) -> tuple[Gate, ...]:
    """Check a candidate against every gate, also after one that fails. `alarms` come with its recommendation."""
    ratio = compared.calibration
    lowest, highest = 1 - settings.calibration, 1 + settings.calibration
    return (
        _bundle_gate(candidate),
        Gate("leaks", "no sign of label leakage", " ".join(map(reason_text, alarms)) or "none", not alarms),
        Gate(
            "positives",
            f"at least {settings.positive_users} users with a positive label",
            f"{compared.positive_users}",
            compared.positive_users >= settings.positive_users,
        ),
        _holdout_gate(compared, candidate.manifest, champion),
        Gate(
            "champion",
            f"an AUC at most {settings.margin:g} below the champion's, within the 95% interval",
            f"{compared}",
            bool(compared.difference.low >= -settings.margin),
        ),
        Gate(
            "calibration",
            f"mean score divided by positive rate from {lowest:g} to {highest:g}, allowing for chance",
            f"{ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f})",
            bool(ratio.low <= highest and ratio.high >= lowest),
        ),
    )


def failed(gates: Sequence[Gate]) -> str:
    """The gates that failed as text; empty if none did."""
    return "; ".join(f"{gate.name}: {gate.value} (required: {gate.rule})" for gate in gates if not gate.passed)


def _bundle_gate(candidate: Bundle) -> Gate:
    rule = "certificate, warm-up rows and export pass the checks of `promote stage`"
    try:
        check_bundle(candidate)
    except BundleError as error:
        return Gate("bundle", rule, str(error), False)
    difference = candidate.manifest.export["largest_difference"]
    return Gate("bundle", rule, f"the export differs by at most {difference:.1e}", True)


def _holdout_gate(compared: ModelComparison, candidate: Manifest, champion: Manifest) -> Gate:
    """The rule of admission, with both measured on the same rows: the champion's holdout may have been easier."""
    here = {METRIC: compared.champion.value, f"{METRIC}_low": compared.champion.low}
    candidate = replace(candidate, metrics={METRIC: compared.candidate.value})
    rule = "the champion's label, and an AUC that reaches the champion's interval on the same rows"
    try:
        check_holdout(candidate, replace(champion, metrics=here))
    except HoldoutError as error:
        return Gate("holdout", rule, str(error), False)
    return Gate("holdout", rule, f"{candidate.metrics[METRIC]:.4f} of {compared.champion}", True)
