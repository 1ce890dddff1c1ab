"""Missing users show, and chance does not, at whatever look."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import betaln
from scipy.stats import beta, binom

from udfs.measurement.sample_ratio import CONCENTRATIONS, SRM_ALPHA, sample_ratio_p

RUNS = 1_000


def factors(treatment: np.ndarray, baseline: np.ndarray, share: float) -> np.ndarray:
    """The Bayes factors of the users of many experiments, as the paper has them."""
    logs = [
        betaln(prior * share + treatment, prior * (1 - share) + baseline) - betaln(prior * share, prior * (1 - share))
        for prior in CONCENTRATIONS
    ]
    planned = treatment * np.log(share) + baseline * np.log(1 - share)
    return np.exp(np.logaddexp.reduce(logs) - np.log(len(logs)) - planned)


def looks_at(rng, share: float, users: int, looks: int, lost: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """The users of both arms at each look, int64[RUNS, looks], if a share of the treatment's is lost."""
    ends = np.unique(np.geomspace(10, users, looks).astype(int))
    drawn = rng.binomial(np.diff(ends, prepend=0), share, (RUNS, len(ends))).cumsum(1)
    return np.round(drawn * (1 - lost)).astype(int), ends - drawn


@pytest.mark.parametrize("share", [0.5, 0.05, 0.01])
def test_of_healthy_experiments_hardly_any_is_an_alarm_at_any_of_400_looks(share):
    treatment, baseline = looks_at(np.random.default_rng(1), share, 100_000, 400)
    found = factors(treatment, baseline, share)
    assert (2 / found.max(1) < SRM_ALPHA).mean() <= 0.003
    assert (2 / found.max(1) < 0.05).mean() <= 0.05
    for run in range(50):
        look = found[run].argmax()
        told = sample_ratio_p([(int(treatment[run, look]), int(baseline[run, look]), share, 1 - share)])
        assert told == pytest.approx(min(1.0, 2 / found[run, look]), rel=1e-6)


def test_of_healthy_experiments_in_many_stretches_hardly_any_is_an_alarm():
    """The same users come in each stretch: the stretches tell the same."""
    rng = np.random.default_rng(2)
    alarms = np.zeros(RUNS, bool)
    is_treated = rng.random((RUNS, 100)) < 0.5
    for number in range(1, 11):
        treatment = rng.permuted(is_treated, axis=1).cumsum(1)
        baseline = np.arange(1, 101) - treatment
        alarms |= (number * (number + 1) / factors(treatment, baseline, 0.5).max(1)) < 0.05
    assert alarms.mean() <= 0.05


@pytest.mark.parametrize(("share", "lost"), [(0.5, 0.05), (0.05, 0.1)])
@pytest.mark.parametrize("before", [0, 4])
def test_a_loss_of_some_users_of_an_arm_is_seen_at_100_000_users(share, lost, before):
    """Also in a fifth stretch, after four without a loss. Of an arm with fewer users, more must be lost."""
    treatment, baseline = looks_at(np.random.default_rng(3), share, 100_000, 2, lost)
    stretches = [(500, 9_500, 0.05, 0.95)] * before
    seen = [
        sample_ratio_p([*stretches, (int(one), int(other), share, 1 - share)]) < SRM_ALPHA
        for one, other in zip(treatment[:200, -1], baseline[:200, -1])
    ]
    assert np.mean(seen) >= 0.98


def test_shares_of_all_users_are_taken_as_shares_of_both_arms():
    assert sample_ratio_p([(100, 900, 0.05, 0.45)]) == pytest.approx(sample_ratio_p([(100, 900, 0.1, 0.9)]))
    assert sample_ratio_p([(500, 500, 0.05, 0.45)]) < SRM_ALPHA


def test_without_users_there_is_no_p_value():
    assert sample_ratio_p([]) is None
    assert sample_ratio_p([(0, 0, 0.5, 0.5)]) is None
    assert sample_ratio_p([(0, 0, 0.5, 0.5), (1, 0, 0.5, 0.5)]) == 1


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9), st.floats(0.001, 1), st.floats(0.001, 1))))
def test_any_counts_have_a_p_value(stretches):
    p_value = sample_ratio_p(stretches)
    assert p_value is None or 0 <= p_value <= 1


@pytest.mark.parametrize("counts", [(3, 9), (30, 12)])
def test_the_bayes_factor_is_that_of_the_integral(counts):
    treatment, baseline = counts

    def likelihood(p: float) -> float:
        prior = np.mean([beta.pdf(p, 0.3 * one, 0.7 * one) for one in CONCENTRATIONS])
        return binom.pmf(treatment, sum(counts), p) * prior

    wanted = quad(likelihood, 0, 1, points=[0.3], limit=200)[0] / binom.pmf(treatment, sum(counts), 0.3)
    assert sample_ratio_p([(treatment, baseline, 0.3, 0.7)]) == pytest.approx(min(1.0, 2 / wanted), rel=1e-4)
    assert factors(np.array(treatment), np.array(baseline), 0.3) == pytest.approx(wanted, rel=1e-4)
