"""Decisions become actions and conversions, each counted once."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.backtesting.ledger import DAY_MS, ActionLedger, ScoredEvents, ledger_of, spaced

MINUTE_MS = 60_000
EVENTS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 200), st.booleans()), max_size=40)


def columns(events) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """User, time and label of events by user, each user's in any order of their times."""
    events = sorted(events, key=lambda event: event[0])
    user, minute, positive = (np.array(column) for column in zip(*events)) if events else ([], [], [])
    return np.array(user, np.int64), np.array(minute, np.int64) * MINUTE_MS, np.array(positive, bool)


def one_after_the_other(user, time_ms, gap_ms) -> list[bool]:
    last: dict[int, int] = {}
    chosen = []
    for who, at in zip(user.tolist(), time_ms.tolist()):
        chosen.append(who not in last or at >= last[who] + gap_ms)
        if chosen[-1]:
            last[who] = at
    return chosen


@given(EVENTS, st.integers(1, 90))
def test_events_are_chosen_as_one_after_the_other_would_be(events, gap):
    user, time_ms, _ = columns(events)
    assert spaced(user, time_ms, gap * MINUTE_MS).tolist() == one_after_the_other(user, time_ms, gap * MINUTE_MS)


def test_without_a_gap_all_are_chosen():
    assert spaced(np.array([0, 0, 1]), np.array([5, 5, 5]), 0).tolist() == [True, True, True]


@given(EVENTS, st.integers(1, 60), st.integers(1, 60))
def test_a_ledger_has_the_actions_and_conversions_of_a_loop(events, quiet, horizon):
    user, time_ms, positive = columns(events)
    time_ms = time_ms * 20  # over several days
    scores = np.where(np.arange(len(user)) % 3 == 0, 0.9, 0.4).astype(np.float32)
    scored = ScoredEvents(user, time_ms, positive, {"all": np.ones(len(user), np.float32), "some": scores})
    ledger = ledger_of(scored, [0.5, 0.5], quiet * MINUTE_MS, horizon * MINUTE_MS)
    expected: dict[tuple, list[int]] = {}
    for policy, decided in enumerate((np.ones(len(user), bool), scores >= 0.5)):
        acted = np.flatnonzero(decided)
        acted = acted[one_after_the_other(user[acted], time_ms[acted], quiet * MINUTE_MS)]
        hits = acted[positive[acted]]
        hits = set(hits[one_after_the_other(user[hits], time_ms[hits], horizon * MINUTE_MS)].tolist())
        for row in acted.tolist():
            entry = expected.setdefault((policy, int(user[row]), int(time_ms[row] // DAY_MS)), [0, 0])
            entry[0] += 1
            entry[1] += row in hits
    keys = zip(ledger.policy.tolist(), ledger.user.tolist(), ledger.day.tolist())
    found = {key: list(counts) for key, counts in zip(keys, zip(ledger.actions.tolist(), ledger.conversions.tolist()))}
    assert found == expected


def test_a_session_of_many_events_counts_once_and_an_outcome_once():
    """A user views ten pages in ten minutes, and buys: one action, one conversion. An hour later, too."""
    time_ms = np.concatenate([np.arange(10), 60 + np.arange(10)]) * MINUTE_MS
    scored = ScoredEvents(np.zeros(20, np.int64), time_ms, np.ones(20, bool), {"model": np.ones(20, np.float32)})
    ledger = ledger_of(scored, [0.5], 30 * MINUTE_MS, 30 * MINUTE_MS)
    assert (ledger.actions.tolist(), ledger.conversions.tolist()) == ([2], [2])
    within_a_day = ledger_of(scored, [0.5], 30 * MINUTE_MS, DAY_MS)
    assert (within_a_day.actions.tolist(), within_a_day.conversions.tolist()) == ([2], [1])


def test_where_no_model_served_nothing_is_done():
    scored = ScoredEvents(np.array([0]), np.array([0]), np.array([True]), {"late": np.array([np.nan], np.float32)})
    assert len(ledger_of(scored, [0.0], 1, 1).user) == 0
    assert len(ActionLedger.joined([]).user) == 0
