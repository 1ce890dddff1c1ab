"""What report, metrics.json and model card state, gathered once, so that they agree."""

from dataclasses import dataclass, field

from training.bundles.trainer import TrainedModel
from training.evaluation.champion import ChampionComparison
from training.evaluation.holdout import Evaluation
from training.evaluation.repeated import Repeated
from training.modeling.metrics import Estimate
from training.reporting.mistakes import Mistake, mistakes
from training.reporting.recommendation import (
    ComparisonOutcome,
    Diagnosis,
    Recommendation,
    diagnose,
    outcome_of,
    recommend,
)
from training.reporting.recommendation_text import NAMES
from training.reporting.segments import Segment, periods, segments
from udfs.models.bundle import Manifest

AUC = "roc_auc"


@dataclass(frozen=True)
class Background:
    """What is known of a training beside its evaluation."""

    data: tuple[str, ...] = ()  # lines that describe the data
    warnings: tuple[str, ...] | None = None  # lines about problems of the data; None if nothing has looked for any
    champion: ChampionComparison | str | None = None  # or why it was not compared


NOTHING_KNOWN = Background()


@dataclass(frozen=True)
class Comparison:
    """The AUC of the model and of a baseline on the same rows."""

    baseline: str
    measured_on: str
    model: Estimate
    other: Estimate
    difference: Estimate
    outcome: ComparisonOutcome


@dataclass(frozen=True)
class Facts:
    """A trained model, and all that is told of it."""

    manifest: Manifest
    evaluation: Evaluation = field(repr=False)
    unwatched: tuple[str, ...]
    background: Background
    recommendation: Recommendation
    diagnosis: Diagnosis
    comparisons: tuple[Comparison, ...]
    segments: tuple[Segment, ...]
    period_unit: str
    periods: tuple[Segment, ...]
    mistakes: tuple[Mistake, ...]

    @property
    def repeated(self) -> Repeated | None:
        measured = self.evaluation.repeated
        return measured if isinstance(measured, Repeated) else None

    @property
    def champion(self) -> ChampionComparison | None:
        compared = self.background.champion
        return compared if isinstance(compared, ChampionComparison) else None

    @property
    def worse(self) -> tuple[Segment, ...]:
        """The segments and periods that the model ranks worse than the holdout as a whole."""
        auc = self.evaluation.metrics[AUC].value
        return tuple(part for part in (*self.segments, *self.periods) if part.is_worse(auc))

    @property
    def off(self) -> tuple[Segment, ...]:
        """The segments and periods in which the scores are not calibrated."""
        return tuple(part for part in (*self.segments, *self.periods) if part.is_off)


def gather(trained: TrainedModel, background: Background = NOTHING_KNOWN) -> Facts:
    """The facts of a trained model."""
    evaluation = trained.evaluation
    holdout, probability = evaluation.holdout, evaluation.probability
    unit, by_period = periods(holdout, probability)
    champion = background.champion if isinstance(background.champion, ChampionComparison) else None
    return Facts(
        manifest=trained.manifest,
        evaluation=evaluation,
        unwatched=trained.unwatched,
        background=background,
        recommendation=recommend(trained, champion),
        diagnosis=diagnose(evaluation),
        comparisons=tuple(_comparisons(evaluation, champion)),
        segments=segments(holdout, probability),
        period_unit=unit,
        periods=by_period,
        mistakes=tuple(mistakes(holdout, probability, trained.manifest.features, evaluation.contributions[:, :-1])),
    )


def _comparisons(evaluation: Evaluation, champion: ChampionComparison | None) -> list[Comparison]:
    """The AUC beside that of each baseline: on new users first, where it decides."""
    found = []
    repeated = evaluation.repeated
    if isinstance(repeated, Repeated):
        where = f"new users, {repeated.repeats} x {repeated.folds} folds"
        for name, metrics in repeated.compared.items():
            difference = repeated.differences[name][AUC]
            is_same = name == evaluation.model
            outcome = ComparisonOutcome.SAME if is_same else outcome_of(difference)
            found.append(Comparison(_named(name), where, repeated.metrics[AUC], metrics[AUC], difference, outcome))
    ours = evaluation.metrics[AUC]
    for name, metrics in evaluation.compared.items():
        difference = evaluation.differences[name][AUC]
        found.append(Comparison(_named(name), "holdout", ours, metrics[AUC], difference, outcome_of(difference)))
    if rule := evaluation.rule:
        difference = rule.differences[AUC]
        found.append(Comparison("The rule", "holdout", ours, rule.metrics[AUC], difference, outcome_of(difference)))
    if champion:
        difference = champion.differences[AUC]
        where = "holdout" if champion.fitted_rows else "holdout, after the champion's training"
        metrics = champion.model_metrics[AUC], champion.champion_metrics[AUC]
        found.append(
            Comparison(f"The champion {champion.version}", where, *metrics, difference, outcome_of(difference))
        )
    return found


def _named(family: str) -> str:
    name = NAMES.get(family, family)
    return name[0].upper() + name[1:]
