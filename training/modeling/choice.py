"""The choice of a model family and of its `teacher_share`, by cross-validation by user.

The rule of one standard error (Breiman and others, Classification and regression trees, 1984, section 3.4.3): of the
candidates whose AUC is within one standard error of the best one's, the simplest is chosen. The standard error is that
of the difference on the same held-out users.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from training.modeling.family import Cost, FittedModel, Fitting, ModelFamily
from training.modeling.metrics import RANKING, Estimate, LabelledScores, difference, estimate
from training.modeling.model_selection import (
    CrossValidated,
    Log,
    TrainingRows,
    cross_validate_all,
    narrowed,
    scored,
    search,
    typical_model,
)

#: The shares of the teacher that are tried where the settings name none.
TEACHER_SHARES = (0.0, 0.3, 0.6, 0.9)
TEACHER_SHARE = "teacher_share"
#: Of larger data, the choice is made on some of the users.
CHOICE_ROWS = 200_000


@dataclass(frozen=True)
class TriedShare:
    """The AUC on held-out users of a model that was distilled with this `teacher_share`."""

    teacher_share: float
    auc: float


@dataclass(frozen=True)
class Candidate:
    """A model family that was tried, with its metrics on held-out users."""

    family: str
    auc: Estimate
    average_precision: Estimate
    behind: Estimate  # its AUC minus that of the best candidate
    within_one_standard_error: bool
    chosen: bool
    teacher_shares: tuple[TriedShare, ...]  # none where the settings name one, or the family has no teacher


@dataclass(frozen=True)
class Choice:
    """The result of choosing: the candidates in order of complexity, and what it cost to measure them."""

    candidates: tuple[Candidate, ...]
    rows: int  # that the candidates were cross-validated on
    cost: Cost

    @property
    def chosen(self) -> Candidate:
        return next(candidate for candidate in self.candidates if candidate.chosen)


@dataclass(frozen=True)
class Chosen:
    """The family chosen, its columns and arguments, and its cross-validation on the rows of the choice."""

    family: ModelFamily
    columns: list[int]
    fitting: Fitting
    crossed: CrossValidated
    choice: Choice
    tried: dict[str, FittedModel]  # of each family, one fold's model


def choose(
    families: Sequence[ModelFamily],
    data: TrainingRows,
    fitting: Fitting,
    parameters: Mapping[str, float],
    trials: int,
    log: Log,
    columns: Sequence[Sequence[int]] | None = None,
) -> Chosen:
    """Cross-validate the families, the simplest first, and choose by the rule of one standard error.

    `fitting` has the arguments other than parameters. `parameters` are set by the user: each family takes those that
    it has. `columns` has those of each family, by default all; families with the same ones are fitted together.
    """
    cost = Cost()
    every = list(range(data.features.shape[1]))
    columns = [every if columns is None else list(mine) for mine in columns or families]
    tried: list[list[Fitting]] = [[] for _ in families]
    crosses_of: list[list[CrossValidated]] = [[] for _ in families]
    for group in dict.fromkeys(map(tuple, columns)):
        places = [place for place, mine in enumerate(columns) if tuple(mine) == group]
        own_data, own_fitting = (
            (data, fitting) if list(group) == every else (data.columns(group), narrowed(fitting, group))
        )
        for place in places:
            tried[place] = _tried(families[place], own_data, own_fitting, parameters, trials, cost, log)
        together = [(families[place], each) for place in places for each in tried[place]]
        crosses = iter(cross_validate_all(together, own_data, cost=cost))
        for place in places:
            crosses_of[place] = [next(crosses) for _ in tried[place]]
    tuned = [
        _best(family, data, fittings, crosses, log) for family, fittings, crosses in zip(families, tried, crosses_of)
    ]
    measured = [scored(data, crossed.probability) for _, crossed, _ in tuned]
    place, behind = simplest_within_one_standard_error(measured)
    candidates = []
    for number, (family, scores, (_, _, shares)) in enumerate(zip(families, measured, tuned)):
        figures = estimate(scores, RANKING)
        within = _is_within(behind[number])
        candidates.append(
            Candidate(
                family.name,
                figures["roc_auc"],
                figures["average_precision"],
                behind[number],
                within,
                number == place,
                shares,
            )
        )
    fitted, crossed, _ = tuned[place]
    choice = Choice(tuple(candidates), len(data.labels), cost)
    models = {family.name: typical_model(crossed) for family, (_, crossed, _) in zip(families, tuned)}
    return Chosen(families[place], columns[place], fitted, crossed, choice, models)


def simplest_within_one_standard_error(measured: Sequence[LabelledScores]) -> tuple[int, list[Estimate]]:
    """The place of the first of the models, whose AUC is within one standard error of the best one's.

    Also returns the differences from the best, paired by user. All models scored the same rows.
    """
    best = max(measured, key=LabelledScores.roc_auc_of_all)
    auc = {"roc_auc": RANKING["roc_auc"]}
    behind = [
        Estimate(0.0, 0.0, 0.0) if scores is best else difference(scores, best, auc)["roc_auc"] for scores in measured
    ]
    return next(place for place, gap in enumerate(behind) if _is_within(gap)), behind


def _is_within(behind: Estimate) -> bool:
    return behind.value >= -behind.standard_error


def _tried(
    family: ModelFamily,
    data: TrainingRows,
    fitting: Fitting,
    parameters: Mapping[str, float],
    trials: int,
    cost: Cost,
    log: Log,
) -> list[Fitting]:
    """The family's fittings to choose from: searched if there are trials, otherwise with each `teacher_share`."""
    given = {name: value for name, value in parameters.items() if name in family.defaults}
    fitting = replace(fitting, parameters={**family.defaults, **given})
    if trials:
        log(f"searching parameters of {family.name}: {trials} trials of {len(np.unique(data.fold))} folds")
        best = search(family, data, fitting, trials, fitting.seed, log, cost)
        return [replace(fitting, parameters={**best, **given})]
    if TEACHER_SHARE not in family.defaults or TEACHER_SHARE in given:
        return [fitting]
    return [replace(fitting, parameters={**fitting.parameters, TEACHER_SHARE: share}) for share in TEACHER_SHARES]


def _best(
    family: ModelFamily, data: TrainingRows, fittings: Sequence[Fitting], crosses: Sequence[CrossValidated], log: Log
) -> tuple[Fitting, CrossValidated, tuple[TriedShare, ...]]:
    """The fitting that ranks held-out users best; the `teacher_share` of each, if there are several."""
    aucs = [_auc(data, crossed) for crossed in crosses]
    best = int(np.argmax(aucs))
    if len(fittings) == 1:
        log(f"    {family.name}: AUC {aucs[0]:.4f}")
        return fittings[0], crosses[0], ()
    shares = tuple(TriedShare(fitting.parameters[TEACHER_SHARE], auc) for fitting, auc in zip(fittings, aucs))
    for each in shares:
        log(f"    {family.name}, teacher_share {each.teacher_share:g}: AUC {each.auc:.4f}")
    return fittings[best], crosses[best], shares


def _auc(data: TrainingRows, crossed: CrossValidated) -> float:
    return scored(data, crossed.probability).roc_auc_of_all()
