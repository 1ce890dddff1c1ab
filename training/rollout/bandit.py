"""The look of a rollout's bandit: each arm's effect on its KPI, the probability of being the best, and the new shares.

The experiments that the ledger has on the challengers give the time, their verdicts say which challenger is stopped,
and `udfs.measurement.thompson` decides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd

from training.experiments.comparison import Report, compare
from training.rollout.ramp_step import HISTORY
from training.rollout.transitions import ChangeError
from udfs.config.durations import duration_ms
from udfs.contracts.outputs import ExperimentAction
from udfs.measurement.arm_effects import Rows, relative_effects
from udfs.measurement.design import Experiment
from udfs.measurement.kpis import KPIS_FILE, Kpi, Term, caps_of, term_values
from udfs.measurement.thompson import posterior, probability_best, shares
from udfs.rollout.experiments import ExperimentError, find_experiment
from udfs.rollout.plan import Bandit, Rollout
from udfs.rollout.registry import Entry

#: Half the width of a 95 % interval of the posterior, in standard deviations.
_NORMAL_95 = 1.96


@dataclass(frozen=True)
class ArmLook:
    """An arm at a look: what is known of it, and its shares of the users."""

    name: str  # champion or challenger
    version: str
    #: The posterior of the effect relative to the champion; None for the champion.
    effect: tuple[float, float, float] | None  # mean, and ends of the 95 % interval
    probability: float  # of being the best arm
    old_share: float
    new_share: float
    note: str | None = None  # why it has the floor only, or no data


@dataclass(frozen=True)
class Look:
    """All arms at a look, the champion first."""

    kpi: str
    arms: tuple[ArmLook, ...]

    @property
    def shares(self) -> dict[str, float]:
        """The new shares of the challengers."""
        return {arm.version: arm.new_share for arm in self.arms[1:]}


def required_bandit(rollout: Rollout) -> Bandit:
    """The rollout's bandit. Raises ChangeError if it has none, or no challenger to decide on."""
    if rollout.bandit is None:
        raise ChangeError("the rollout has no bandit: set one by `apply`, or give shares by `ramp`")
    if not rollout.challengers:
        raise ChangeError("there is no challenger to give a share to: `start` one")
    return rollout.bandit


def split_since(entries: Sequence[Entry]) -> datetime:
    """Since when all arms have had their users, by the complete entries of the ledger, in order."""
    since, split = entries[-1].at, _split(entries[-1].rollout)
    for entry in reversed(entries):
        if _split(entry.rollout) != split:
            break
        since = entry.at
    return since


def next_look(entries: Sequence[Entry]) -> datetime:
    """From when on the current split may change. Raises ChangeError without a bandit."""
    every = required_bandit(entries[-1].rollout).every
    return split_since(entries) + timedelta(milliseconds=duration_ms(every))


def refuse_early(entries: Sequence[Entry], now: datetime) -> None:
    """Raises ChangeError while the current split is younger than the bandit's `every`."""
    if now < (next_at := next_look(entries)):
        raise ChangeError(
            f"the shares hold for {entries[-1].rollout.bandit.every} at least, key bandit.every: repeat this from "
            f"{next_at:%Y-%m-%d %H:%M:%S} UTC on"
        )


def sessions_since(entries: Sequence[Entry]) -> datetime:
    """The time from which on sessions tell of the challengers, their users' history included. Raises ChangeError."""
    earliest = min(experiment.history_until_ms for experiment in _experiments(entries).values())
    return datetime.fromtimestamp(earliest / 1000, UTC) - HISTORY


def salt(number: int) -> str:
    """The salt by which an entry of the ledger draws the users of all challengers afresh."""
    return f"bandit-{number}"


def look(entries: Sequence[Entry], sessions: pd.DataFrame, kpis: Mapping[str, Kpi]) -> Look:
    """What the sessions say of the arms of the newest entry, and the shares that follow.

    A challenger that its experiment's verdict stops keeps the floor. Raises ChangeError, with the reason, if the shares
    have to stay: without a bandit or data, and when the arms do not have the users that their shares give them.
    """
    rollout = entries[-1].rollout
    bandit = required_bandit(rollout)
    if bandit.kpi not in kpis:
        raise ChangeError(
            f"key bandit.kpi: {bandit.kpi} is not defined in {KPIS_FILE}; expected one of {', '.join(kpis)}"
        )
    experiments = _experiments(entries)
    reports = {version: compare(sessions, kpis, experiment) for version, experiment in experiments.items()}
    for version, report in reports.items():
        if report.action == ExperimentAction.FIX_FIRST:
            raise ChangeError(f"the shares stay as they are: {version}: {report.decision}")
    rows = arm_rows(sessions, list(experiments.values()), kpis[bandit.kpi])
    effects = relative_effects(rows, 1 + len(reports))
    if not effects.arms:
        reasons = "; ".join(f"{version}: {effects.no_data[arm]}" for arm, version in enumerate(reports, 1))
        raise ChangeError(f"the shares stay as they are: no data on {bandit.kpi}: {reasons}")
    stopped = [arm for arm, report in enumerate(reports.values(), 1) if report.action == ExperimentAction.STOP]
    mean, covariance = posterior(effects, len(reports))
    probability = probability_best(mean, covariance, kpis[bandit.kpi].direction == "up", stopped)
    return _look(rollout, reports, probability, mean, np.sqrt(np.diag(covariance)), stopped, effects.no_data)


def lines(found: Look) -> list[str]:
    """A look as text: a line for each arm."""
    width = max(len(arm.version) for arm in found.arms)
    return [
        f"{arm.name:10}  {arm.version:{width}}  {found.kpi} {_effect(arm)}, best with {arm.probability:6.1%}; "
        f"share {arm.old_share:.2%} -> {arm.new_share:.2%}" + (f"; {arm.note}" if arm.note else "")
        for arm in found.arms
    ]


def arm_rows(sessions: pd.DataFrame, experiments: Sequence[Experiment], kpi: Kpi) -> Rows:
    """What users did for a KPI, by the stretches of experiments that have one baseline; arm 0 is the baseline.

    A user counts in the arm of the first session of a stretch, as in each experiment. Sessions of bots are left out.
    """
    is_person = ~sessions["is_bot"].to_numpy(bool) if "is_bot" in sessions else np.ones(len(sessions), bool)
    people = sessions[is_person]
    started = people["started_at"].to_numpy()
    ends = {time for one in experiments for part in one.stretches for time in (part.start_ms, part.end_ms)}
    borders = sorted(ends - {None})
    stretch = np.searchsorted(borders, started, side="right")
    arm = np.full(len(people), -1)
    for number, experiment in enumerate(experiments, 1):
        within = np.zeros(len(people), bool)
        for part in experiment.stretches:
            within |= (started >= part.start_ms) & (started < (np.inf if part.end_ms is None else part.end_ms))
        for position, (name, version) in ((number, experiment.treatment), (0, experiment.baseline)):
            arm[within & (people["arm"] == name) & (people["model_version"] == version)] = position
    compared = people[arm >= 0]
    cap = caps_of({"": kpi}, people[arm == 0]).get("")
    frame = pd.DataFrame(
        {
            "user": pd.factorize(compared["user_id"])[0],
            "stretch": stretch[arm >= 0],
            "arm": arm[arm >= 0],
            "started": started[arm >= 0],
            "numerator": term_values(Term(kpi.numerator, cap), compared),
            "denominator": term_values(Term(kpi.denominator), compared),
        }
    ).sort_values(["started", "arm"])
    first = frame.groupby(["user", "stretch"])["arm"].transform("first")
    summed = frame[frame["arm"] == first].groupby(["user", "stretch", "arm"], as_index=False).sum()
    return Rows(*(summed[name].to_numpy() for name in Rows._fields))


def _experiments(entries: Sequence[Entry]) -> dict[str, Experiment]:
    """The experiment on each challenger beside the champion of the newest entry, by version. Raises ChangeError."""
    rollout, found = entries[-1].rollout, {}
    for part in rollout.challengers:
        try:
            experiment = find_experiment(entries, "challenger", "champion", part.version)
        except ExperimentError as error:
            raise ChangeError(f"the shares stay as they are: {error}") from None
        if experiment.baseline.version != rollout.champion:
            raise ChangeError(
                f"the shares stay as they are: {part.version} has had no users beside {rollout.champion}: give both a "
                "share above 0 by `apply`"
            )
        found[part.version] = experiment
    return found


def _look(
    rollout: Rollout,
    reports: Mapping[str, Report],
    probability: np.ndarray,
    mean: np.ndarray,
    error: np.ndarray,
    stopped: Sequence[int],
    no_data: Mapping[int, str],
) -> Look:
    bandit = rollout.bandit
    new = [round(share, 6) for share in (rollout.model_share * shares(probability, bandit.floor)[1:]).tolist()]
    old = [part.share for part in rollout.challengers]
    champion_share = round(1 - rollout.control.share - sum(new), 9)
    arms = [ArmLook("champion", rollout.champion, None, float(probability[0]), rollout.champion_share, champion_share)]
    for arm, (version, report) in enumerate(reports.items(), 1):
        note = f"the floor only: {report.decision}" if arm in stopped else no_data.get(arm)
        value, reach = float(mean[arm - 1]), _NORMAL_95 * float(error[arm - 1])
        interval = value, value - reach, value + reach
        arms.append(ArmLook("challenger", version, interval, float(probability[arm]), old[arm - 1], new[arm - 1], note))
    return Look(bandit.kpi, tuple(arms))


def _effect(arm: ArmLook) -> str:
    if arm.effect is None:
        return "is the measure"
    return "{:+.1%} ({:+.1%} to {:+.1%})".format(*arm.effect)


def _split(rollout: Rollout) -> tuple:
    """What decides which users each arm has."""
    return (
        rollout.salt,
        rollout.challenger_salt,
        rollout.champion,
        rollout.control,
        rollout.eligible,
        rollout.challengers,
    )
