"""Thompson sampling in batches: each arm's share of the users follows from the probability that it is the best.

The rule is Thompson's (On the Likelihood that One Unknown Probability Exceeds Another in View of the Evidence of Two
Samples, Biometrika 1933), in batches and with a normal posterior as in Scott (A modern Bayesian look at the multi-armed
bandit, Applied Stochastic Models in Business and Industry 2010). A floor for each arm keeps all effects measurable.
"""

from collections.abc import Collection
from functools import lru_cache

import numpy as np

from udfs.measurement.arm_effects import ArmEffects

#: The standard deviation that relative effects have before there are data: two of three are within 10 %.
PRIOR_SD = 0.1
_DRAWS_LOG2 = 15


def prior_covariance(challengers: int) -> np.ndarray:
    """The covariance of the relative effects before there are data, float64[challengers, challengers].

    All arms are alike, the baseline included: each is as likely the best. So two effects have a correlation of 1/2, as
    both are relative to the same baseline.
    """
    return PRIOR_SD**2 / 2 * (np.eye(challengers) + 1)


def posterior(effects: ArmEffects, challengers: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean, float64[challengers], and covariance of the relative effects; of an arm without data, by prior and others.

    The prior draws large effects of few users towards 0.
    """
    prior = prior_covariance(challengers)
    known = np.array(effects.arms, int) - 1
    gain = np.linalg.solve(prior[np.ix_(known, known)] + effects.covariance, prior[known]).T
    return gain @ effects.relative, prior - gain @ prior[known]


def probability_best(
    mean: np.ndarray, covariance: np.ndarray, upwards: bool = True, excluded: Collection[int] = ()
) -> np.ndarray:
    """The probability of each arm, the baseline first, that its KPI is the best of those not excluded: float64[arms].

    `mean` and `covariance` are those of the others' relative effects. Equal input gives equal output: the integral is
    a mean over a fixed set of quasi-random points.
    """
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    effects = mean + _normal_points(len(mean)) @ root.T
    worth = np.column_stack([np.zeros(len(effects)), effects if upwards else -effects])
    worth[:, list(excluded)] = -np.inf
    return np.bincount(worth.argmax(1), minlength=worth.shape[1]) / len(worth)


def shares(probability: np.ndarray, floor: float) -> np.ndarray:
    """The share of each arm, float64[arms]: the floor, and what is left by the probability of being best.

    >>> shares(np.array([0.25, 0.75]), 0.1)
    array([0.3, 0.7])
    """
    return floor + (1 - len(probability) * floor) * probability


@lru_cache(maxsize=16)
def _normal_points(dimensions: int) -> np.ndarray:
    """Quasi-random points of the standard normal distribution, float64[draws, dimensions], always the same ones."""
    from scipy.stats import qmc  # which takes long, and commands that change no shares need nothing of it

    points = qmc.MultivariateNormalQMC(np.zeros(dimensions), seed=0).random(2**_DRAWS_LOG2)
    points.setflags(write=False)
    return points
