"""What changes in mid-stream: everybody's behaviour at the shift, that of some users by the lift."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tests.support.calibration import calibration_errors
from training.simulation.behaviour import Behaviour
from training.simulation.clickstream import Simulation, simulate
from training.simulation.examples import simulated_examples
from training.simulation.propensity import purchase_propensity
from udfs.contracts.packed_events import EVENT_KINDS
from udfs.features.declaration import SESSION_GAP_MS
from udfs.rollout.assignment import arms, assign, positions
from udfs.rollout.plan import Challenger, Control, Rollout

USUAL = Simulation(users=4_000, seed=5)
SALT, LIFT_START, LIFT_END = "changes", 0.3, 0.7
CHANGED = replace(
    USUAL, shift_at=12, lift_at=2, lift_start=LIFT_START, lift_end=LIFT_END, lift_salt=SALT, late_share=0.05
)


@pytest.fixture(scope="module")
def stream():
    return simulate(CHANGED)


def behaves(stream, behaviour: Behaviour) -> np.ndarray:
    return stream.events["behaviour"] & behaviour > 0


def bots(stream) -> np.ndarray:
    """Which events are those of users who never have a chance to buy, bool[n]."""
    users = stream.events["user"]
    return ~np.isin(users, users[stream.propensity > 0])


def is_lifted(stream) -> np.ndarray:
    """Whether each event's user is to be lifted, bool[n]."""
    place = positions(SALT, [person["user_id"] for person in stream.people])[stream.events["user"]]
    return (place >= LIFT_START) & (place < LIFT_END)


def stability_index(before: np.ndarray, after: np.ndarray) -> float:
    """Population Stability Index over tenths of what was before."""
    edges = np.unique(np.nanquantile(before, np.arange(1, 10) / 10))
    shares = [
        np.bincount(np.searchsorted(edges, values[~np.isnan(values)], side="right"), minlength=len(edges) + 1) + 1
        for values in (before, after)
    ]
    old, new = (counts / counts.sum() for counts in shares)
    return float(((new - old) * np.log(new / old)).sum())


@pytest.mark.slow
def test_equal_changes_give_equal_streams():
    once, again = (simulate(replace(CHANGED, users=500)) for _ in range(2))
    assert list(again.clicks()) == list(once.clicks())
    assert np.array_equal(again.propensity, once.propensity)


@pytest.mark.slow
def test_until_something_changes_the_stream_is_the_one_without_changes():
    few = replace(USUAL, users=500)
    usual = list(simulate(few).clicks())
    assert usual == list(simulate(replace(few, shift_at=few.hours)).clicks())
    assert usual == list(simulate(replace(few, lift_at=few.hours, lift_end=1.0)).clicks())


@pytest.mark.slow
def test_what_begins_after_the_shift_is_shifted_and_a_visit_never_changes(stream):
    order = np.lexsort((stream.events["time_ms"], stream.events["user"]))
    events, is_bot = stream.events[order], bots(stream)[order]
    begins = (np.diff(events["user"], prepend=-1) != 0) | (np.diff(events["time_ms"], prepend=0) > SESSION_GAP_MS)
    shifted = events["behaviour"] & Behaviour.SHIFTED > 0
    late = events["time_ms"] >= CHANGED.shift_ms
    assert (shifted == late)[begins & ~is_bot].all()
    assert not shifted[is_bot].any()
    assert (np.diff(events["behaviour"])[~begins[1:]] == 0).all()


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("lifted", [False, True])
def test_the_propensity_is_calibrated_whatever_has_changed(stream, shifted, lifted):
    wanted = (
        ~bots(stream) & (behaves(stream, Behaviour.SHIFTED) == shifted) & (behaves(stream, Behaviour.LIFTED) == lifted)
    )
    assert np.abs(calibration_errors(stream, stream.propensity, wanted)).max() < 4


def test_after_the_shift_the_propensity_of_usual_behaviour_is_not_calibrated(stream):
    usual = purchase_propensity(*(stream.events[name] for name in ("context", "cart", "intent")), np.zeros(len(stream)))
    assert np.abs(calibration_errors(stream, usual, behaves(stream, Behaviour.SHIFTED))).max() > 4


@pytest.mark.slow
def test_features_move_at_the_shift_and_what_a_score_is_worth_too(stream):
    examples = simulated_examples(stream)
    shifted = stream.events["behaviour"][examples.offset] & Behaviour.SHIFTED > 0
    calm = ~shifted & (examples.time_ms < CHANGED.start_ms + 11 * 3_600_000)
    moved = {
        name: stability_index(values[calm], values[shifted])
        for name, values in zip(examples.names, examples.features.T)
    }
    for name in ("device", "value", "session_mean_gap_s", "product_views_5m", "session_depth"):
        assert moved[name] > 0.15, name
    for name in ("since_signup_days", "marketing_consent"):
        assert moved[name] < 0.02, name

    tier = examples.features[:, examples.names.index("membership_tier")]
    before, after = (roc_auc_score(examples.labels[rows], tier[rows]) for rows in (calm, shifted))
    assert before > 0.6 > 0.55 > after


def test_lifted_users_click_promotions_and_buy_more_often_and_only_from_then_on(stream):
    lifted, kind = is_lifted(stream), np.array(EVENT_KINDS)[stream.kind]
    begun = stream.events["time_ms"] >= CHANGED.start_ms + CHANGED.lift_at * 3_600_000
    assert not behaves(stream, Behaviour.LIFTED)[~(lifted & begun)].any()

    def clicks_per_impression(rows: np.ndarray) -> float:
        rows = rows & (stream.events["slot"] >= 0)
        return (kind[rows] == "select_promotion").sum() / (kind[rows] == "view_promotion").sum()

    assert clicks_per_impression(lifted & begun) > 1.2 * clicks_per_impression(~lifted & begun)
    users = stream.events["user"]
    rate = [
        (kind[rows] == "purchase").sum() / len(np.unique(users[rows])) for rows in (lifted & begun, ~lifted & begun)
    ]
    assert rate[0] > 1.2 * rate[1]


@pytest.mark.parametrize("salt", [None, "v2"])
def test_lifted_users_are_those_of_an_arm_of_a_rollout(stream, salt):
    if salt is not None:
        stream = simulate(replace(CHANGED, users=1_000, lift_challenger_salt=salt))
    challenger = Challenger(version="v2", share=LIFT_END - LIFT_START, at_most=0.5, start=LIFT_START)
    control = Control(share=0, at_most=LIFT_START)
    rollout = Rollout(salt=SALT, champion="v1", challenger_salt=salt, control=control, challengers=(challenger,))
    users = [person["user_id"] for person in stream.people]
    arm = assign(rollout, users, np.ones(len(users), bool))[stream.events["user"]]
    lifted = behaves(stream, Behaviour.LIFTED)
    assert {arms(rollout)[number].name for number in np.unique(arm[lifted])} == {"challenger"}
    assert {arms(rollout)[number].name for number in np.unique(arm[~lifted])} == {"challenger", "champion"}
