"""An experiment that options state is taken only if the sessions do not contradict it."""

import pandas as pd
import pytest

from training.experiments.stated import QUIET_MS, DesignError, check_arms, stated_experiment
from udfs.measurement.design import Experiment, ExperimentArm, Stretch

START_MS = 1_772_323_200_000  # 2026-03-01T00:00:00Z
CHALLENGER, CHAMPION, CONTROL = map(ExperimentArm, ("challenger", "champion", "control"))
SHARES = {"challenger": 0.5, "champion": 0.45, "control": 0.05}


def sessions(*rows: tuple[str, str | None, int]) -> pd.DataFrame:
    """An arm, a version and a start, in ms since START_MS, of each session."""
    frame = pd.DataFrame(rows, columns=["arm", "model_version", "started_at"])
    return frame.assign(started_at=frame["started_at"] + START_MS)


PLAIN = sessions(("champion", "v1", -9), ("champion", "v1", 0), ("challenger", "v2", 5_000), ("control", "v1", 9_000))


def test_an_experiment_has_one_stretch_and_the_versions_of_its_sessions():
    assert stated_experiment(PLAIN, CHALLENGER, CHAMPION, START_MS, SHARES) == Experiment(
        ExperimentArm("challenger", "v2"),
        ExperimentArm("champion", "v1"),
        (Stretch(START_MS, None, 0.5, 0.45),),
        START_MS,
    )
    assert stated_experiment(PLAIN, CHAMPION, CONTROL, START_MS, SHARES).baseline == CONTROL  # no model decides there


def test_several_versions_of_an_arm_are_refused_unless_one_is_chosen():
    two = pd.concat([PLAIN, sessions(("challenger", "v3", 6_000))])
    with pytest.raises(DesignError) as refused:
        stated_experiment(two, CHALLENGER, CHAMPION, START_MS, SHARES)
    assert str(refused.value) == (
        "challenger has sessions of v2 and v3 since the start; an experiment compares one version with one other: "
        "choose it with --version, or give --registry instead of --start and --shares"
    )
    changed = pd.concat([PLAIN, sessions(("champion", "v2", 6_000))])
    with pytest.raises(DesignError, match="champion has sessions of v1 and v2.*with --baseline-version"):
        stated_experiment(changed, CHALLENGER, CHAMPION, START_MS, SHARES)
    chosen = stated_experiment(two, ExperimentArm("challenger", "v3"), CHAMPION, START_MS, SHARES)
    assert chosen.treatment == ExperimentArm("challenger", "v3")


def test_an_earlier_version_is_history():
    earlier = pd.concat([PLAIN, sessions(("challenger", "v0", -1))])
    assert stated_experiment(earlier, CHALLENGER, CHAMPION, START_MS, SHARES).treatment.version == "v2"


def test_sessions_without_a_version_are_taken_as_they_are():
    unknown = PLAIN.assign(model_version=None)
    assert stated_experiment(unknown, CHALLENGER, CHAMPION, START_MS, SHARES).arms == (CHALLENGER, CHAMPION)


@pytest.mark.parametrize(
    ("start_ms", "told"),
    [
        (START_MS + 9_001, "--start 2026-03-01T00:00:09Z is after all sessions, which are from 2026-02-28T23:59:59Z to "
                           "2026-03-01T00:00:09Z: give a time in this range"),
        (START_MS - 10 - QUIET_MS, "--start 2026-02-27T23:59:59Z is more than a day before all sessions, which are "
                                   "from 2026-02-28T23:59:59Z to 2026-03-01T00:00:09Z"),
    ],
)  # fmt: skip
def test_a_start_that_cannot_be_is_refused_with_the_times_of_the_sessions(start_ms, told):
    with pytest.raises(DesignError) as refused:
        stated_experiment(PLAIN, CHALLENGER, CHAMPION, start_ms, SHARES)
    assert str(refused.value).startswith(told)


def test_the_first_session_may_come_late():
    assert stated_experiment(PLAIN, CHALLENGER, CHAMPION, START_MS - QUIET_MS, SHARES)


@pytest.mark.parametrize(
    ("shares", "told"),
    [
        ({"challenger": 0.5}, "--shares: the share of champion is missing: add champion=SHARE"),
        ({"challenger": 0.6, "champion": 0.5}, "--shares: the shares must add up to at most 1, got 1.1"),
    ],
)
def test_shares_that_cannot_be_are_refused(shares, told):
    with pytest.raises(DesignError) as refused:
        stated_experiment(PLAIN, CHALLENGER, CHAMPION, START_MS, shares)
    assert str(refused.value) == told


def test_an_arm_without_sessions_is_told_with_the_arms_that_there_are():
    experiment = Experiment(ExperimentArm("challenger", "v3"), CHAMPION, (Stretch(START_MS, None, 0.5, 0.5),), START_MS)
    with pytest.raises(DesignError) as refused:
        check_arms(PLAIN, experiment)
    assert str(refused.value) == (
        "challenger v3 has no session in the experiment, which began at 2026-03-01T00:00:00Z; its sessions are of "
        "challenger v2 (1), champion v1 (1), control v1 (1)"
    )


def test_an_experiment_of_another_time_is_told_with_the_times_of_the_sessions():
    """As when a ledger knows nothing of the times to which a replay has shifted its events."""
    later = START_MS + 60_000
    experiment = Experiment(CHALLENGER, CHAMPION, (Stretch(later, None, 0.5, 0.5),), later)
    with pytest.raises(DesignError, match="the sessions are from 2026-02-28T23:59:59Z .* give --start and --shares"):
        check_arms(PLAIN, experiment)
