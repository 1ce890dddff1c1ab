"""Whether the arms have the users that their traffic shares give them, checked at every look.

A mismatch means that users are lost somewhere (Fabijan et al., Diagnosing Sample Ratio Mismatch in Online Controlled
Experiments, KDD 2019). The test is sequential (Lindon and Malek, Anytime-Valid Inference For Multinomial Count Data,
NeurIPS 2022): the Bayes factor against the planned shares exceeds 1 / alpha with a probability of at most alpha, at
any look of an experiment whose users arrive as planned. It is averaged over priors that expect small and large
mismatches. Each stretch is tested at an alpha of its own, and these add up to alpha: so the promise holds however the
stretches depend on each other, and however many there will be.
"""

from collections.abc import Iterable
from math import exp, inf, log

from scipy.special import betaln

SRM_ALPHA = 0.001
#: How many users each prior is worth: the fewer, the larger the mismatch that it expects.
CONCENTRATIONS = (10, 100, 1_000, 10_000)


def sample_ratio_p(stretches: Iterable[tuple[int, int, float, float]]) -> float | None:
    """The p-value, valid at every look, of the numbers of users of two arms; None without users.

    Each stretch is the users of both arms, and the shares that they should have, above 0. Below SRM_ALPHA it is a
    sample ratio mismatch.
    """
    p_values = [
        number * (number + 1) / _bayes_factor(treatment, baseline, share / (share + other))
        for number, (treatment, baseline, share, other) in enumerate(stretches, 1)
        if treatment + baseline
    ]
    return min(1.0, *p_values) if p_values else None


def _bayes_factor(treatment: int, baseline: int, share: float) -> float:
    """The average Bayes factor of the counts against a binomial distribution with this share."""
    planned = treatment * log(share) + baseline * log(1 - share)
    logs = [
        betaln(prior * share + treatment, prior * (1 - share) + baseline)
        - betaln(prior * share, prior * (1 - share))
        - planned
        for prior in CONCENTRATIONS
    ]
    return sum(exp(value) if value < 700 else inf for value in logs) / len(logs)
