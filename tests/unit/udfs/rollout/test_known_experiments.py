"""The experiments of a ledger are read again as it grows, and stay known while it can't be read."""

import logging

import pytest
from msgspec.structs import replace

from tests.support.ledgers import rollout_of, write_ledger
from udfs.measurement.design import Experiment, ExperimentArm, Stretch
from udfs.rollout.known_experiments import FixedExperiment, LedgerExperiments
from udfs.rollout.plan import Challenger, Control
from udfs.rollout.registry import RegistryError
from udfs.rollout.rules import Rule

FIRST = [(1_000, rollout_of("a")), (2_000, rollout_of("a", b=0.1))]
RAMPED = [*FIRST, (3_000, rollout_of("a", b=0.5))]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def follow(tmp_path, clock):
    """A function that writes a ledger, and opens it at the first call."""

    def write(*rollouts) -> LedgerExperiments:
        uri = write_ledger(tmp_path / "registry", *rollouts)
        return LedgerExperiments(uri, "challenger", "champion", poll_s=30.0, clock=clock)

    return write


def stretches(source) -> list[tuple[Stretch, ...]]:
    return [experiment.stretches for experiment in source.known().experiments]


def test_a_change_of_the_ledger_is_seen_at_the_next_poll(follow, clock):
    source = follow(*FIRST)
    assert stretches(source) == [(Stretch(2_000, None, 0.1, 0.9),)]
    follow(*RAMPED)
    clock.now = 29.9
    assert len(stretches(source)[0]) == 1
    clock.now = 30.0
    assert stretches(source) == [(Stretch(2_000, 3_000, 0.1, 0.9), Stretch(3_000, None, 0.5, 0.5))]


def test_a_refresh_does_not_wait_for_the_poll(follow):
    source = follow(*FIRST)
    follow(*RAMPED)
    assert len(source.refresh().experiments[0].stretches) == 2


def test_a_ledger_that_can_not_be_read_leaves_what_is_known_and_is_read_again(follow, clock, tmp_path, caplog):
    source = follow(*FIRST)
    (tmp_path / "registry").rename(tmp_path / "elsewhere")
    clock.now = 30.0
    with caplog.at_level(logging.WARNING):
        assert len(stretches(source)[0]) == 1
    assert "experiments are those of entry 2 of the ledger: " in caplog.text
    (tmp_path / "elsewhere").rename(tmp_path / "registry")
    follow(*RAMPED)
    assert len(stretches(source)[0]) == 1
    clock.now = 60.0
    assert len(stretches(source)[0]) == 2


def test_sessions_of_control_are_no_history_of_a_challenger_that_comes_later(tmp_path):
    control = {"control": Control(share=0.1, at_most=0.1), "rule": Rule(any=("lifetime_events >= 2",))}
    challenger = Challenger(version="b", share=0.1, at_most=0.1, start=0.5)
    before = [(1_000, rollout_of("a")), (2_000, replace(rollout_of("a"), **control))]
    source = LedgerExperiments(write_ledger(tmp_path / "registry", *before), "challenger", "control", poll_s=0.0)
    of_control = source.known().rollout_ms(3_000)
    write_ledger(
        tmp_path / "registry", *before, (4_000, replace(rollout_of("a"), challengers=(challenger,), **control))
    )
    (experiment,) = source.refresh().experiments
    assert experiment.history_until_ms == 2_000 <= of_control


def test_a_job_does_not_start_without_a_ledger(tmp_path):
    with pytest.raises(RegistryError, match="no entry"):
        LedgerExperiments(str(tmp_path), "challenger", "champion", 30.0)


def test_a_ledger_without_the_two_arms_has_no_experiments(follow):
    assert stretches(follow((1_000, rollout_of("a")))) == []


def test_a_fixed_experiment_is_the_only_one():
    experiment = Experiment(ExperimentArm("a"), ExperimentArm("b"), (Stretch(5, None, 0.5, 0.5),), 5)
    source = FixedExperiment(experiment)
    assert source.known() == source.refresh()
    assert source.known().find("a vs. b") == experiment
    assert source.known().find("a@1 vs. b") is None
