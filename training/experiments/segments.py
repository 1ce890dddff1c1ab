"""Effects by segment: on users who are alike in what was known of them before the treatment could act.

Segments explain an effect; they never change the decision. Among many of them some look good by chance, so what is
told of them is corrected for all segments and KPIs together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from training.experiments.comparison import Report, arm_sides, cell_sums, stretch_numbers
from udfs.measurement.cell_sums import CellSums
from udfs.measurement.design import Experiment
from udfs.measurement.effects import Effect, always_valid_p, boundary, holm
from udfs.measurement.experiment import KpiResult, judge
from udfs.measurement.kpis import terms_of

#: The segments of users of whom the attribute is not known, and of those with less frequent values.
UNKNOWN, OTHERS = "unknown", "others"
#: The number of values that are segments of their own.
MOST_VALUES = 10


class Contrast(NamedTuple):
    """The effect in a segment against that on all other users, as shares of their baselines."""

    others: float  # the relative effect on the other users
    p_value: float  # of equal effects, valid at every look
    differs: bool = False  # after Holm's correction over all segments and KPIs


@dataclass(frozen=True)
class Segment:
    """The effects on the users of a segment."""

    name: str
    users: int
    #: By KPI, better or worse after Holm's correction over all segments and KPIs.
    findings: dict[str, KpiResult]
    #: By KPI, where both effects have a relative interval. Of two segments, the first has the contrast of both.
    contrasts: dict[str, Contrast]


@dataclass(frozen=True)
class Segmentation:
    """The segments by an attribute, largest first."""

    attribute: str
    segments: tuple[Segment, ...]
    no_data: str | None = None  # why there are none, in a few words


def by_segment(sessions: pd.DataFrame, report: Report, attributes: Mapping[str, pd.Series]) -> tuple[Segmentation, ...]:
    """The effects by segment of the sessions of a report.

    `attributes` has a series by user for each attribute; a user without a value there is of the segment UNKNOWN.
    """
    experiment = report.experiment
    people = _people(sessions)
    within = pd.unique(people.loc[_is_compared(people, experiment), "user_id"])
    return _corrected(
        [
            _segmentation(people, report, attribute, segments_of(values.reindex(within)))
            for attribute, values in attributes.items()
        ]
    )


def devices(sessions: pd.DataFrame, experiment: Experiment) -> pd.Series:
    """The device of each user's first session in an experiment, by user."""
    return _first_sessions(sessions, experiment)["device"]


def visit_history(sessions: pd.DataFrame, experiment: Experiment) -> pd.Series:
    """Whether each user of an experiment is new or returning, by user; no user if no session is from before it.

    Returning users have a session from before the time when the draw made a difference.
    """
    people = _people(sessions)
    earlier = people.loc[people["started_at"] < experiment.history_until_ms, "user_id"]
    users = _first_sessions(sessions, experiment).index
    if earlier.empty:
        return pd.Series(dtype=object)
    return pd.Series(np.where(users.isin(earlier), "returning", "new"), users, object)


def countries(profiles: pd.DataFrame, sessions: pd.DataFrame, experiment: Experiment) -> pd.Series:
    """The country of each user at the first session in an experiment, by user; what came later may be an effect.

    `profiles` has user_id, since_ms and country, which is None if unknown.
    """
    first_ms = _first_sessions(sessions, experiment)["started_at"]
    profiles = profiles[profiles["user_id"].isin(first_ms.index)]
    profiles = profiles[profiles["since_ms"].to_numpy() <= first_ms.reindex(profiles["user_id"]).to_numpy()]
    newest = profiles.sort_values("since_ms", kind="stable").drop_duplicates("user_id", keep="last")
    return newest.set_index("user_id")["country"]


def segments_of(values: pd.Series) -> pd.Series:
    """The segment of each of n users, from their values of an attribute: the largest ones, OTHERS and UNKNOWN."""
    values = values.astype(object).where(values.notna(), UNKNOWN)
    sizes = values[values != UNKNOWN].value_counts()
    largest = sorted(sizes.index, key=lambda value: (-sizes[value], value))[:MOST_VALUES]
    return values.where(values.isin([*largest, UNKNOWN]), OTHERS)


def _people(sessions: pd.DataFrame) -> pd.DataFrame:
    return sessions[~sessions["is_bot"].to_numpy(bool)]


def _is_compared(sessions: pd.DataFrame, experiment: Experiment) -> np.ndarray:
    """Whether each of n sessions is of an arm of an experiment, in one of its stretches; bool[n]."""
    within = stretch_numbers(experiment, sessions["started_at"].to_numpy()) >= 0
    return within & (arm_sides(experiment, sessions) >= 0)


def _first_sessions(sessions: pd.DataFrame, experiment: Experiment) -> pd.DataFrame:
    """The first session of each user in an experiment, by user."""
    people = _people(sessions)
    compared = people[_is_compared(people, experiment)]
    # Of equally early sessions, that with the first device in the alphabet counts, whatever the order of records.
    return compared.sort_values(["started_at", "device"]).drop_duplicates("user_id").set_index("user_id")


def _segmentation(people: pd.DataFrame, report: Report, attribute: str, segment: pd.Series) -> Segmentation:
    sizes = segment.value_counts()
    names = sorted(sizes.index, key=lambda name: (name in (OTHERS, UNKNOWN), -sizes[name], name))
    if len(names) < 2:
        told = f"the {attribute} of all users is {names[0]}" if names else "no users"
        return Segmentation(attribute, (), told)
    of_session = people["user_id"].map(segment).to_numpy()
    sums = [_sums(people[of_session == name], report) for name in names]
    findings = [_findings(part, report) for part in sums]
    # The contrasts of two segments are the same one.
    others = [_findings(_added(sums[:at] + sums[at + 1 :]), report) for at in range(len(names) if names[2:] else 1)]
    contrasts = [_contrasts(*pair) for pair in zip(findings, others)]
    contrasts += [{}] * (len(names) - len(contrasts))
    return Segmentation(
        attribute,
        tuple(Segment(name, int(sizes[name]), *found) for name, *found in zip(names, findings, contrasts)),
    )


def _sums(people: pd.DataFrame, report: Report) -> CellSums:
    experiment = report.experiment
    stretch = stretch_numbers(experiment, people["started_at"].to_numpy())
    terms = terms_of(_kpis(report), _caps(report))
    return cell_sums(people, experiment, terms, stretch, arm_sides(experiment, people))


def _findings(sums: CellSums, report: Report) -> dict[str, KpiResult]:
    return judge(report.experiment, sums, _kpis(report), _caps(report), margins={}).findings


def _kpis(report: Report) -> dict:
    return {name: finding.kpi for name, finding in report.findings.items()}


def _caps(report: Report) -> dict[str, float]:
    """The limits of the report: with limits of its own, a segment would be measured by another KPI."""
    return {name: finding.cap for name, finding in report.findings.items() if finding.cap is not None}


def _added(parts: Sequence[CellSums]) -> CellSums:
    """The sums over the users of all parts, of which no two have a user in common."""
    total = CellSums(parts[0].width)
    for part in parts:
        for pair, products in part.products.items():
            total.products[pair] = total.products.get(pair, 0.0) + products
    return total


def _contrasts(findings: Mapping[str, KpiResult], others: Mapping[str, KpiResult]) -> dict[str, Contrast]:
    pairs = {name: (finding.effect, others[name].effect) for name, finding in findings.items()}
    return {
        name: _contrast(*effects)
        for name, effects in pairs.items()
        if all(effect is not None and effect.relative is not None for effect in effects)
    }


def _contrast(effect: Effect, others: Effect) -> Contrast:
    """Relative effects are compared: where users buy more, an equal improvement is a larger difference."""
    difference = effect.relative.value - others.relative.value
    variance = _relative_variance(effect) + _relative_variance(others)
    return Contrast(others.relative.value, always_valid_p(difference, variance, effect.users + others.users))


def _relative_variance(effect: Effect) -> float:
    """The variance of a relative effect, from Fieller's interval: at least that of the delta method."""
    return ((effect.relative.high - effect.relative.low) / 2 / boundary(effect.users)) ** 2


def _corrected(segmentations: Sequence[Segmentation]) -> tuple[Segmentation, ...]:
    """Segmentations with the significance of what is in them, corrected for all that is in all of them."""
    effects, contrasts = {}, {}
    for part in segmentations:
        for segment in part.segments:
            where = part.attribute, segment.name
            effects |= {(*where, kpi): one.effect.p_value for kpi, one in segment.findings.items() if one.effect}
            contrasts |= {(*where, kpi): one.p_value for kpi, one in segment.contrasts.items()}
    significant, differing = holm(effects), holm(contrasts)

    def corrected(segment: Segment, attribute: str) -> Segment:
        where = attribute, segment.name
        return replace(
            segment,
            findings={
                kpi: _with_significance(one, (*where, kpi) in significant) for kpi, one in segment.findings.items()
            },
            contrasts={kpi: one._replace(differs=(*where, kpi) in differing) for kpi, one in segment.contrasts.items()},
        )

    return tuple(
        replace(part, segments=tuple(corrected(segment, part.attribute) for segment in part.segments))
        for part in segmentations
    )


def _with_significance(finding: KpiResult, significant: bool) -> KpiResult:
    better = significant and (finding.effect.difference > 0) == (finding.kpi.direction == "up")
    return replace(finding, is_better=better, is_worse=significant and not better)
