"""Purchase propensity of simulated users within a horizon: the shop's Markov chain, solved by backward recursion."""

from functools import cache
from statistics import NormalDist

import numpy as np
from scipy.sparse import csr_array

from training.simulation.behaviour import (
    ACTIONS,
    BUY,
    CART_LIMIT,
    INTENT_LIMIT,
    LEAVE,
    ShoppingContext,
    action_probabilities,
    decay,
    pauses_of,
    state_after,
)

_STEP_S = 5
_QUANTILES = 200
_GRID = np.linspace(0.0, INTENT_LIMIT, 161)
_SHAPE = (len(ShoppingContext), CART_LIMIT + 1, len(_GRID))


def purchase_propensity(
    context: np.ndarray, cart: np.ndarray, intent: np.ndarray, behaviour: np.ndarray, horizon_s: int = 1800
) -> np.ndarray:
    """The probability that a user who has just come into these states buys within the horizon, float64[n].

    Exact but for the numerics: time in steps of 5 s, pauses by their quantiles, linear interpolation in intent.
    """
    lower, share = _bracket(intent)
    propensity = np.empty(len(context))
    for code in np.unique(behaviour).astype(int).tolist():
        rows = behaviour == code
        table, state, above = _propensity_table(code, horizon_s), (context[rows], cart[rows]), share[rows]
        propensity[rows] = (1 - above) * table[*state, lower[rows]] + above * table[*state, lower[rows] + 1]
    return propensity


@cache
def _propensity_table(behaviour: int, horizon_s: int) -> np.ndarray:
    """Purchase probability by context, cart and intent on the grid, float64[contexts, CART_LIMIT + 1, grid].

    Bellman's recursion over the time left, with sparse matrices on states. `after[s]` is the probability with s steps
    left when an action was just taken, `before[s]` when the pause is over and the next action is due:
        after[s](state)  = mean over pauses p of before[s - p](state, intent decayed over p), 0 when p > s
        before[s](state) = P(buy) + sum over other actions a of P(a) after[s](state after a)
    """
    buy, act = _action_operator(behaviour)
    pause, longest = _pause_operator(behaviour)
    steps = horizon_s // _STEP_S
    before = np.zeros((longest + steps + 1, buy.size))  # the first rows stand for the time past the horizon
    for row in range(longest, longest + steps + 1):
        after = pause @ before[row - longest : row].ravel()
        before[row] = buy + act @ after
    return after.reshape(_SHAPE)


def _action_operator(behaviour: int) -> tuple[np.ndarray, csr_array]:
    """P(buy) of each state, and the matrix from each state to those after the actions that go on."""
    context, cart, grid = np.indices(_SHAPE)
    probabilities = action_probabilities(context, cart, _GRID[grid], behaviour)
    buy = probabilities[..., BUY].copy()
    probabilities[..., [BUY, LEAVE]] = 0.0
    context, cart, grid = context[..., None], cart[..., None], grid[..., None]
    after = state_after(context, cart, _GRID[grid], behaviour, np.arange(len(ACTIONS)))
    return buy.ravel(), _interpolation(*after, weight=probabilities, offset=0, columns=buy.size)


def _pause_operator(behaviour: int) -> tuple[csr_array, int]:
    """The matrix from each state to the states at the pause's end, in a window of `longest` steps, oldest first."""
    context, cart, grid = (index[..., None] for index in np.indices(_SHAPE))
    normal = np.array([NormalDist().inv_cdf((quantile + 0.5) / _QUANTILES) for quantile in range(_QUANTILES)])
    pauses = pauses_of(context, behaviour, normal)
    steps = np.maximum(np.rint(pauses / _STEP_S).astype(np.int64), 1)
    longest, states = int(steps.max()), int(np.prod(_SHAPE))
    weight = np.full(steps.shape, 1 / _QUANTILES)
    offset = (longest - steps) * states
    operator = _interpolation(
        context, cart, decay(_GRID[grid], pauses), weight=weight, offset=offset, columns=longest * states
    )
    return operator, longest


def _interpolation(context, cart, intent, weight, offset, columns: int) -> csr_array:
    """Row r of the matrix spreads weight[r, :] over the grid points around the r-th row of the states given."""
    context, cart, intent, weight, offset = np.broadcast_arrays(context, cart, intent, weight, offset)
    lower, share = _bracket(intent)
    column = offset + np.ravel_multi_index((context, cart, lower), _SHAPE)
    row = np.arange(weight.size) // weight.shape[-1]
    entries = np.concatenate([((1 - share) * weight).ravel(), (share * weight).ravel()])
    places = np.concatenate([row, row]), np.concatenate([column.ravel(), column.ravel() + 1])
    return csr_array((entries, places), shape=(weight.size // weight.shape[-1], columns))


def _bracket(intent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The grid point below each intent, and its share of the way to the next grid point."""
    position = intent / INTENT_LIMIT * (len(_GRID) - 1)
    lower = np.minimum(position.astype(np.int64), len(_GRID) - 2)
    return lower, position - lower
