import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.labels import HORIZON_MS, PURCHASE, eligible, purchase_within, roc_auc
from udfs.history import EVENT_KINDS

VIEW = EVENT_KINDS.index("view_item")


def label(*events: tuple[int, int, int]) -> list[bool]:
    """Labels of (user, time in ms, kind) triples."""
    user, time_ms, kind = np.array(events, np.int64).T
    return purchase_within(user, time_ms, kind)[0].tolist()


def test_an_event_before_a_purchase_is_positive_and_the_purchase_itself_is_not():
    assert label((1, 0, VIEW), (1, 1_000, PURCHASE)) == [True, False]


def test_a_purchase_at_the_end_of_the_horizon_is_a_label():
    assert label((1, 0, VIEW), (1, HORIZON_MS, PURCHASE)) == [True, False]


def test_a_purchase_outside_the_horizon_is_no_label():
    assert label((1, 0, VIEW), (1, HORIZON_MS + 1, PURCHASE)) == [False, False]


def test_a_purchase_at_the_same_moment_is_no_label():
    assert label((1, 5_000, VIEW), (1, 5_000, PURCHASE)) == [False, False]


def test_a_purchase_of_another_user_is_no_label():
    assert label((1, 0, VIEW), (2, 1_000, PURCHASE)) == [False, False]


def test_a_purchase_before_is_no_label():
    assert label((1, 1_000, VIEW), (1, 0, PURCHASE)) == [False, False]


def test_a_second_purchase_labels_the_first():
    assert label((1, 0, PURCHASE), (1, 1_000, PURCHASE)) == [True, False]


def test_a_row_matures_when_its_horizon_has_passed_before_the_newest_event():
    time_ms = np.array([0, 1, HORIZON_MS])
    _, matured = purchase_within(np.array([1, 1, 2]), time_ms, np.full(3, VIEW))
    assert matured.tolist() == [True, False, False]


def test_no_events_have_no_labels():
    labels, matured = purchase_within(*np.empty((3, 0), np.int64))
    assert labels.shape == matured.shape == (0,)


def test_only_matured_rows_that_are_no_purchases_are_eligible():
    kind = np.array([VIEW, VIEW, PURCHASE, PURCHASE])
    assert eligible(kind, np.array([True, False, True, False])).tolist() == [True, False, False, False]


event = st.tuples(st.integers(0, 3), st.integers(0, 12), st.sampled_from([VIEW, PURCHASE]))


@given(st.lists(event, min_size=1, max_size=25), st.integers(1, 6))
def test_labels_are_what_the_definition_says_in_any_order_of_events(triples, horizon_ms):
    user, time_ms, kind = np.array(triples, np.int64).T
    labels, matured = purchase_within(user, time_ms, kind, horizon_ms)
    newest = max(time for _, time, _ in triples)
    for (who, time, _), is_positive, is_mature in zip(triples, labels, matured):
        assert is_positive == any(
            other == who and kind == PURCHASE and time < bought <= time + horizon_ms for other, bought, kind in triples
        )
        assert is_mature == (time + horizon_ms <= newest)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=30))
def test_auc_is_the_share_of_pairs_in_the_right_order_with_ties_as_half(pairs):
    positives = [score for positive, score in pairs if positive]
    negatives = [score for positive, score in pairs if not positive]
    labels, scores = (np.array(column) for column in zip(*pairs))
    if not positives or not negatives:
        with pytest.raises(ValueError, match=f"got {len(positives)} positive and {len(negatives)} negative"):
            roc_auc(labels, scores)
        return
    wins = sum((high > low) + 0.5 * (high == low) for high in positives for low in negatives)
    assert roc_auc(labels, scores) == pytest.approx(wins / len(positives) / len(negatives))
