"""What a ledger says of the experiments that it has run."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from msgspec.structs import replace

from training.rollout import transitions
from training.rollout.ledger import append, next_entry
from udfs.measurement.design import Stretch
from udfs.rollout.assignment import arms, assign
from udfs.rollout.experiments import ExperimentError, experiments, find_experiment, read_entries
from udfs.rollout.plan import Challenger, Control, Rollout
from udfs.rollout.registry import ENTRY_FORMAT, Entry, Registry
from udfs.rollout.rules import Rule

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
RULE = Rule(any=("cart_adds_30m >= 1",))
FIRST = Rollout(salt="s", champion="v1", rule=RULE)


def ledger(*rollouts: Rollout, at: tuple[float, ...] | None = None) -> list[Entry]:
    """Entries of rollouts, by default an hour after each other."""
    seconds = at or [3_600 * number for number in range(len(rollouts))]
    return [
        Entry(
            format=ENTRY_FORMAT,
            number=number,
            at=BEGIN + timedelta(seconds=second),
            by="me",
            command=(),
            why="",
            rollout=rollout,
        )
        for number, (rollout, second) in enumerate(zip(rollouts, seconds), 1)
    ]


def ms(hours: float) -> int:
    return round((BEGIN.timestamp() + 3_600 * hours) * 1000)


def start(rollout: Rollout, version: str, share: float = 0.1, at_most: float = 0.5) -> Rollout:
    return transitions.start(rollout, version, share, at_most)


def control(rollout: Rollout, share: float) -> Rollout:
    return replace(rollout, control=Control(share=share, at_most=0.2))


def stretches(entries: list[Entry], *arms: str, version: str | None = None) -> list[tuple]:
    return [tuple(one) for one in find_experiment(entries, *arms, version).stretches]


STARTED = start(FIRST, "v2")
RAMPED = transitions.ramp(STARTED, "v2", 0.5)
STOPPED = transitions.stop(RAMPED, "v2")


def test_each_ramp_begins_a_stretch_and_stopping_ends_the_last():
    found = find_experiment(ledger(FIRST, STARTED, RAMPED, STOPPED), "challenger", "champion")
    assert found.key == "challenger@v2 vs. champion@v1"
    assert found.stretches == (Stretch(ms(1), ms(2), 0.1, 0.9), Stretch(ms(2), ms(3), 0.5, 0.5))
    assert found.history_until_ms == ms(1)


def test_the_last_stretch_goes_on():
    assert stretches(ledger(FIRST, STARTED), "challenger", "champion") == [(ms(1), None, 0.1, 0.9)]


def test_a_change_of_neither_share_nor_draw_begins_no_stretch():
    shadowed = transitions.add_shadow(STARTED, "v9")
    assert stretches(ledger(FIRST, STARTED, shadowed), "challenger", "champion") == [(ms(1), None, 0.1, 0.9)]


@pytest.mark.parametrize("change", [{"eligible": RULE}, {"salt": "t"}, {"challenger_salt": "t"}])
def test_other_users_begin_a_stretch(change):
    entries = ledger(FIRST, STARTED, replace(STARTED, **change))
    assert stretches(entries, "challenger", "champion") == [(ms(1), ms(2), 0.1, 0.9), (ms(2), None, 0.1, 0.9)]


def test_a_challenger_that_is_started_again_goes_on_with_its_experiment():
    again = start(STOPPED, "v2", share=0.5)
    found = find_experiment(ledger(FIRST, STARTED, RAMPED, STOPPED, again), "challenger", "champion")
    assert [one.start_ms for one in found.stretches] == [ms(1), ms(2), ms(4)]
    assert [one.end_ms for one in found.stretches] == [ms(2), ms(3), None]
    assert found.history_until_ms == ms(1)


def test_what_a_rollback_brings_back_goes_on():
    entries = ledger(FIRST, STARTED, RAMPED, STARTED)
    wanted = [(ms(1), ms(2), 0.1, 0.9), (ms(2), ms(3), 0.5, 0.5), (ms(3), None, 0.1, 0.9)]
    assert stretches(entries, "challenger", "champion") == wanted


def test_a_new_champion_ends_an_experiment_and_begins_another():
    entries = ledger(FIRST, STARTED, replace(STARTED, champion="v3"))
    found = experiments(entries, "challenger", "champion")
    assert [one.key for one in found] == ["challenger@v2 vs. champion@v1", "challenger@v2 vs. champion@v3"]
    assert [one.stretches for one in found] == [
        (Stretch(ms(1), ms(2), 0.1, 0.9),),
        (Stretch(ms(2), None, 0.1, 0.9),),
    ]
    # In the hour before the second, the users of v2 had v2 already, and those of the champion did not.
    assert [one.history_until_ms for one in found] == [ms(1), ms(1)]


def test_a_challenger_that_becomes_champion_ends_its_experiment():
    entries = ledger(FIRST, STARTED, RAMPED, transitions.to_champion(RAMPED, "v2"))
    assert len(experiments(entries, "challenger", "champion")) == 1
    assert stretches(entries, "challenger", "champion")[-1] == (ms(2), ms(3), 0.5, 0.5)


def test_two_challengers_have_an_experiment_each():
    both = start(STARTED, "v3", share=0.2)
    entries = ledger(FIRST, STARTED, both, transitions.stop(both, "v2"))
    share = pytest.approx(0.7)
    assert stretches(entries, "challenger", "champion", version="v2") == [
        (ms(1), ms(2), 0.1, 0.9),
        (ms(2), ms(3), 0.1, share),
    ]
    assert stretches(entries, "challenger", "champion", version="v3") == [
        (ms(2), ms(3), 0.2, share),
        (ms(3), None, 0.2, 0.8),
    ]
    assert find_experiment(entries, "challenger", "champion").treatment.version == "v3"
    assert find_experiment(entries[:3], "challenger", "champion", "v2").treatment.version == "v2"


def test_a_challenger_that_starts_alone_may_have_all_that_is_earlier_as_history():
    """Its users are drawn afresh, so that those of the earlier one are in both arms."""
    entries = ledger(FIRST, STARTED, RAMPED, STOPPED, start(STOPPED, "v3"))
    assert find_experiment(entries, "challenger", "champion").history_until_ms == ms(4)


def test_a_challenger_in_the_region_of_another_has_no_history_from_its_time():
    """Beside a third one, the second gets the region, and with it the users, of the first."""
    both = start(STARTED, "v3")
    entries = ledger(FIRST, STARTED, both, transitions.stop(both, "v2"), start(transitions.stop(both, "v2"), "v4"))
    users = [f"user-{number}" for number in range(2_000)]
    of = [
        {
            user
            for user, arm in zip(users, assign(rollout, users, np.ones(2_000, bool)))
            if arms(rollout)[arm].version == version
        }
        for rollout, version in ((entries[1].rollout, "v2"), (entries[4].rollout, "v4"))
    ]
    assert of[0] == of[1]
    assert find_experiment(entries, "challenger", "champion", "v4").history_until_ms == ms(1)


def test_control_is_compared_at_its_shares_without_a_version():
    entries = ledger(FIRST, control(FIRST, 0.1), control(FIRST, 0.2))
    found = find_experiment(entries, "champion", "control")
    assert found.key == "champion@v1 vs. control"
    assert found.stretches == (Stretch(ms(1), ms(2), 0.9, 0.1), Stretch(ms(2), None, 0.8, 0.2))
    assert find_experiment(entries, "control", "champion").stretches == tuple(
        one._replace(treatment_share=one.baseline_share, baseline_share=one.treatment_share) for one in found.stretches
    )


def test_history_ends_when_control_begins_whatever_champion_there_was():
    with_control = control(FIRST, 0.1)
    entries = ledger(FIRST, with_control, replace(with_control, champion="v3"), start(with_control, "v4"))
    for treatment, version in (("champion", "v3"), ("champion", "v1"), ("challenger", "v4")):
        assert find_experiment(entries, treatment, "control", version).history_until_ms == ms(1), treatment
    assert find_experiment(entries, "challenger", "champion").history_until_ms == ms(3)


def test_control_under_another_salt_is_no_matter():
    with_control = control(FIRST, 0.1)
    entries = ledger(with_control, replace(with_control, salt="t", champion="v3"))
    assert find_experiment(entries, "champion", "control").history_until_ms == ms(1)


def test_a_change_that_is_replaced_at_the_same_time_is_no_stretch():
    entries = ledger(FIRST, STARTED, RAMPED, at=(0, 3_600, 3_600))
    assert stretches(entries, "challenger", "champion") == [(ms(1), None, 0.5, 0.5)]
    entries = ledger(FIRST, STARTED, RAMPED, at=(0, 3_600, 3_600.25))
    first, second = stretches(entries, "challenger", "champion")
    assert (first[:2], second[:2]) == ((ms(1), ms(1) + 250), (ms(1) + 250, None))


def test_an_arm_without_users_has_no_stretch():
    paused = replace(STARTED, challengers=(replace(STARTED.challengers[0], share=0.0),))
    assert stretches(ledger(STARTED, paused, STARTED), "challenger", "champion") == [
        (ms(0), ms(1), 0.1, 0.9),
        (ms(2), None, 0.1, 0.9),
    ]
    everyone = Rollout(
        salt="s", champion="v1", challengers=(Challenger(version="v2", share=1.0, at_most=1.0, start=0.0),)
    )
    assert experiments(ledger(everyone), "challenger", "champion") == []


def test_stretches_of_an_experiment_never_overlap():
    rng = np.random.default_rng(1)
    rollouts = [
        FIRST,
        STARTED,
        RAMPED,
        STOPPED,
        start(STARTED, "v3"),
        control(FIRST, 0.1),
        replace(RAMPED, champion="v3"),
    ]
    for _ in range(200):
        drawn = [rollouts[number] for number in rng.integers(len(rollouts), size=8)]
        entries = ledger(*drawn, at=tuple(np.cumsum(rng.integers(0, 3, 8)).tolist()))
        for names in (("challenger", "champion"), ("challenger", "control"), ("champion", "control")):
            for one in experiments(entries, *names):
                ends = [stretch.end_ms for stretch in one.stretches[:-1]]
                assert None not in ends
                assert all(end <= after.start_ms for end, after in zip(ends, one.stretches[1:]))
                assert all(stretch.end_ms is None or stretch.start_ms < stretch.end_ms for stretch in one.stretches)
                assert one.history_until_ms <= one.stretches[0].start_ms


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        (("champion", "champion"), "arm champion cannot be compared with itself: choose two arms"),
        (("challenger", "champion", "v9"), "the ledger has never had v9 as challenger beside champion; it has had v2"),
        (
            ("champion", "control"),
            "the ledger has never had a model as champion beside control; `intent promote start` begins an experiment",
        ),
        (("not_eligible", "champion"), "not_eligible is no arm to compare: expected challenger, champion or control"),
    ],
)
def test_an_experiment_that_never_was_is_an_error_with_a_remedy(wanted, error):
    with pytest.raises(ExperimentError) as raised:
        find_experiment(ledger(FIRST, STARTED), *wanted)
    assert str(raised.value) == error


def test_entries_are_read_in_order_without_those_that_are_not_completely_written(tmp_path):
    registry = Registry(str(tmp_path))
    for rollout in (FIRST, STARTED, RAMPED):
        append(registry, next_entry(registry), rollout, by="me", command=(), why="")
    assert [entry.rollout for entry in read_entries(registry)] == [FIRST, STARTED, RAMPED]
    (tmp_path / "ledger" / "00000002.json").write_text("{")
    assert [entry.number for entry in read_entries(registry)] == [1, 3]
