"""An experiment that options state, for sessions whose times no ledger knows, such as those of a replay."""

from collections.abc import Mapping

import pandas as pd

from training.experiments.comparison import arm_sides, stretch_numbers
from training.experiments.wording import arm_text, range_text, time_text
from udfs.measurement.design import Experiment, ExperimentArm, Stretch

#: The first session of an experiment may begin this long after its start.
QUIET_MS = 86_400_000


class DesignError(ValueError):
    """An experiment that the sessions contradict; the message is one line with a remedy."""


def stated_experiment(
    sessions: pd.DataFrame,
    treatment: ExperimentArm,
    baseline: ExperimentArm,
    start_ms: int,
    shares: Mapping[str, float],
) -> Experiment:
    """An experiment of one stretch that begins at `start_ms`, with the users' shares by arm. Raises DesignError.

    An arm of which no version is stated must have sessions of a single one.
    """
    _check_shares(shares, treatment, baseline)
    _check_start(sessions, start_ms)
    since = sessions[sessions["started_at"] >= start_ms]
    treatment = _of_one_version(since, treatment, "--version")
    baseline = _of_one_version(since, baseline, "--baseline-version")
    stretch = Stretch(start_ms, None, shares[treatment.name], shares[baseline.name])
    return Experiment(treatment, baseline, (stretch,), start_ms)


def check_arms(sessions: pd.DataFrame, experiment: Experiment) -> None:
    """Raises DesignError unless both arms have sessions in the experiment's stretches."""
    within = stretch_numbers(experiment, sessions["started_at"].to_numpy()) >= 0
    sides = arm_sides(experiment, sessions)
    for side, arm in enumerate(experiment.arms):
        if not (within & (sides == side)).any():
            raise DesignError(
                f"{arm_text(arm)} has no session in the experiment, which began at "
                f"{time_text(experiment.stretches[0].start_ms)}; {_had(sessions, within)}"
            )


def _had(sessions: pd.DataFrame, within: pd.Series) -> str:
    """The arms and versions that sessions of an experiment's time are of; where there are none, when they began."""
    if not within.any():
        return (
            f"the sessions are {range_text(sessions)}. For events that were replayed, give --start and --shares "
            "instead of --registry"
        )
    counts = sessions[within].fillna({"arm": "no arm", "model_version": ""}).value_counts(["arm", "model_version"])
    arms = (f"{arm_text(ExperimentArm(*arm))} ({count})" for arm, count in counts.items())
    return f"its sessions are of {', '.join(arms)}"


def _check_shares(shares: Mapping[str, float], treatment: ExperimentArm, baseline: ExperimentArm) -> None:
    missing = [arm.name for arm in (treatment, baseline) if arm.name not in shares]
    if missing:
        raise DesignError(f"--shares: the share of {' and '.join(missing)} is missing: add {missing[0]}=SHARE")
    total = sum(shares.values())
    if total > 1 + 1e-9:
        raise DesignError(f"--shares: the shares must add up to at most 1, got {total:g}")


def _check_start(sessions: pd.DataFrame, start_ms: int) -> None:
    began = sessions["started_at"]
    if start_ms > began.max():
        raise DesignError(
            f"--start {time_text(start_ms)} is after all sessions, which are {range_text(sessions)}: give a time in "
            "this range"
        )
    if start_ms < began.min() - QUIET_MS:
        raise DesignError(
            f"--start {time_text(start_ms)} is more than a day before all sessions, which are {range_text(sessions)}: "
            "give the time from which they belong to the experiment"
        )


def _of_one_version(sessions: pd.DataFrame, arm: ExperimentArm, option: str) -> ExperimentArm:
    """The arm, with the version of its sessions where they have only one. Raises DesignError for several."""
    if arm.version is not None or arm.name == "control":  # no model decides there
        return arm
    versions = sessions.loc[sessions["arm"] == arm.name, "model_version"]
    known = sorted(versions.dropna().unique())
    if len(known) > 1:
        raise DesignError(
            f"{arm.name} has sessions of {' and '.join(known)} since the start; an experiment compares one version "
            f"with one other: choose it with {option}, or give --registry instead of --start and --shares"
        )
    return arm._replace(version=known[0]) if known and versions.notna().all() else arm
