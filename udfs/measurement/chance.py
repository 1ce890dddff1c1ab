"""Indices of stability, and what chance makes of them: a quantile for many users, and one for a few large ones.

The index of shares p now and q at training is the sum of (p - q) ln(p / q) over the bins (Siddiqi, Credit Risk
Scorecards, 2006). A contrast of the shares, the sum of w (p - q) for weights w, explains a part of it.
"""

import numpy as np
from scipy.special import betaincinv, chdtri

#: The chance that a window has a user as large as the largest of training, or a new value of a user of usual size.
#: That it has several is as many times as improbable.
LARGE_USER = 0.005


def stability_index(p: np.ndarray, q: np.ndarray) -> float:
    """The Population Stability Index of two distributions float[bins], which have no empty bins.

    >>> round(stability_index(np.array([0.5, 0.5]), np.array([0.6, 0.4])), 5)
    0.04055
    """
    return float(((p - q) * np.log(p / q)).sum())


def contrast_index(weights: np.ndarray, p: np.ndarray, q: np.ndarray) -> float:
    """What a contrast with weights float[bins], not all alike, explains of the index of two such distributions.

    It is the square of the contrast over the variance of the weights, with each bin weighted by the logarithmic mean of
    p and q. The index is the sum of (p - q)^2 over that mean, so no contrast has more (Cauchy and Schwarz).

    >>> p, q = np.array([0.2, 0.3, 0.5]), np.array([0.3, 0.3, 0.4])
    >>> round(contrast_index(np.array([0, 1, 2]), p, q), 4), round(stability_index(p, q), 4)
    (0.0612, 0.0629)
    """
    ratio = np.log(p / q)
    mean = np.where(np.abs(ratio) < 1e-6, (p + q) / 2, (p - q) / np.where(ratio == 0, 1, ratio))
    deviations = weights - weights @ mean / mean.sum()
    return float((deviations @ (p - q)) ** 2 / (deviations**2 @ mean))


def index_quantile(
    noise: float, rhythm: float, degrees: float, noise_degrees: float, large: float, probability: float
) -> float:
    """What an index exceeds with this probability without drift.

    Its mean is `noise` by chance, distributed as chi-square with `degrees` of freedom, and `rhythm`; users told the
    noise with `noise_degrees`, and a few large ones make an index of `large`.
    """
    expected = noise + rhythm
    # Patnaik (Biometrika 36, 1949): a chi-square variable that is off centre is about one that is not, with the same
    # mean and variance. Off centre by the rhythm: the hours differ in truth.
    degrees = degrees * expected**2 / (noise**2 + 2 * noise * rhythm)
    of_many = expected * float(chdtri(degrees, probability)) / degrees
    # The variance itself is measured on some users, of whom a few may be most of it: F instead of chi-square.
    measured = expected * _f_quantile(degrees, noise_degrees, probability)
    # These quantiles are those of shares of many users. A few large ones can do more, in the window and at training,
    # among others as they are on average. What is uncertain about the variance is what they do: no more than add to
    # many others in the same direction.
    return max(min(measured, (of_many**0.5 + large**0.5) ** 2), (expected**0.5 + large**0.5) ** 2)


def large_users(probability: float) -> float:
    """How many large users come by chance with this probability."""
    return float(np.log(probability) / np.log(LARGE_USER))


def index_of_large(share: float, at_training: float) -> float:
    """The index when large users with a share of the rows all have one value, which had a given share at training."""
    if share >= 1:
        return np.inf
    more = share * (1 - at_training)
    return more * float(np.log((at_training + more) / (at_training * (1 - share))))


def smoothed(shares: np.ndarray, independent_rows: float) -> np.ndarray:
    """Shares float[bins] with half an independent row more in each bin, so that none is empty."""
    return (shares * independent_rows + 0.5) / (independent_rows + len(shares) / 2)


def _f_quantile(degrees: float, of_variance: float, probability: float) -> float:
    """What a variable with the F distribution exceeds with a probability, however small: `fdtri` takes its complement.

    >>> round(_f_quantile(3, 20, 0.05), 3)
    3.098
    """
    rest = float(betaincinv(of_variance / 2, degrees / 2, probability))
    return of_variance * (1 - rest) / (degrees * rest) if rest else np.inf
