from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from udfs.contracts.packed_events import EVENT, EVENT_KINDS
from udfs.measurement.labels import (
    CONVERTED,
    LABELS_FILE,
    Label,
    LabelError,
    find_label,
    label_clicks,
    label_events,
    label_of_sentence,
    sum_after,
)

VIEW, CART, PURCHASE, PAGE = (EVENT_KINDS.index(kind) for kind in ("view_item", "add_to_cart", "purchase", "page_view"))
HORIZON_MS = CONVERTED.horizon_ms
FILE = Path(__file__).parents[4] / "conf" / LABELS_FILE
NAMES = ("converted", "abandoned", "engaged", "deep_visit")  # labels that bundles of format 1 may have


def labels(*events: tuple[int, int, int], label: Label = CONVERTED) -> list[bool]:
    """Labels of (user, time in ms, kind) triples."""
    return label_clicks(label, *np.array(events, np.int64).T)[0].tolist()


def test_an_event_before_a_purchase_is_positive_and_the_purchase_itself_is_not():
    assert labels((1, 0, VIEW), (1, 1_000, PURCHASE)) == [True, False]


def test_a_purchase_at_the_end_of_the_horizon_counts_and_one_after_it_does_not():
    assert labels((1, 0, VIEW), (1, HORIZON_MS, PURCHASE)) == [True, False]
    assert labels((1, 0, VIEW), (1, HORIZON_MS + 1, PURCHASE)) == [False, False]


def test_purchases_before_at_the_same_moment_and_of_others_do_not_count():
    assert labels((1, 5, VIEW), (1, 5, PURCHASE), (1, 0, PURCHASE), (2, 6, PURCHASE))[0] is False


def test_a_row_is_used_when_its_horizon_has_passed_and_it_is_no_outcome_itself():
    time_ms, kind = np.array([0, 1, 0, HORIZON_MS]), np.array([VIEW, VIEW, PURCHASE, VIEW])
    assert label_clicks(CONVERTED, np.array([1, 1, 1, 2]), time_ms, kind)[1].tolist() == [True, False, False, False]


def test_the_end_of_the_data_may_be_later_than_its_newest_event():
    records = np.zeros(1, EVENT)
    assert label_events(CONVERTED, np.zeros(1, int), records, HORIZON_MS)[1].tolist() == [True]


def test_no_events_have_no_labels():
    positive, usable = label_clicks(CONVERTED, *np.empty((3, 0), np.int64))
    assert positive.shape == usable.shape == (0,)


def test_a_purchase_counts_in_its_session_alone():
    label = find_label("bought_in_session", FILE)
    gap = label.session_gap_ms
    assert labels((1, 0, VIEW), (1, gap, VIEW), (1, 2 * gap, PURCHASE), label=label) == [True, True, False]
    assert labels((1, 0, VIEW), (1, gap + 1, VIEW), (1, 2 * gap, PURCHASE), label=label) == [False, True, False]
    # Other users' events neither end a session nor continue it.
    assert labels((1, 0, VIEW), (2, gap, VIEW), (1, gap + 1, PURCHASE), label=label)[0] is False
    assert str(label) == (
        "purchase by the same user in the same session (pauses of at most 30 min) within 2 h after the event"
    )


def test_abandoned_scores_cart_adds_only_and_is_positive_without_a_purchase():
    label = find_label("abandoned", FILE)
    user, time_ms = np.array([1, 1, 2, 3]), np.array([0, 1, 0, label.horizon_ms])
    positive, usable = label_clicks(label, user, time_ms, np.array([CART, PURCHASE, CART, VIEW]))
    assert positive.tolist()[:3] == [False, True, True]
    assert usable.tolist() == [True, False, True, False]


def test_engaged_sums_the_engagement_time_that_follows():
    records = np.zeros(3, EVENT)
    records["time_ms"] = 0, 1, 2
    records["engagement_ds"] = 9_999, 700, 500
    assert label_events(find_label("engaged", FILE), np.zeros(3, int), records)[0].tolist() == [True, False, False]


def test_a_deep_visit_counts_page_views():
    events = [(1, second, PAGE) for second in range(6)]
    assert labels(*events, label=find_label("deep_visit", FILE)) == [True] + [False] * 5


def test_any_event_within_a_time_is_a_label():
    label = find_label("add_to_cart within 1 h", FILE)
    assert (label.events, label.horizon_ms) == (("add_to_cart",), 3_600_000)
    assert str(label) == "add_to_cart by the same user within 1 h after the event"


def test_names_that_are_no_texts_are_listed_all_the_same(tmp_path):
    path = tmp_path / "labels.yaml"
    path.write_text("0: {events: [purchase]}\nnull: {}\n")
    with pytest.raises(LabelError, match=r"not in labels.yaml \(0, None\)"):
        find_label("bought", path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bought", "label 'bought': not in labels.yaml (converted, bought_in_session, abandoned, "),
        ("shopping within 1 h", "'shopping' is not an event"),
        ("purchase within 0 h", "horizon: must be more than 0"),
        ("purchase within 3 weeks", "label 'purchase within 3 weeks': Expected `str` matching regex"),
        (f"purchase within {'9' * 5_000} d", "Expected `str` matching regex"),
    ],
)
def test_a_label_that_cannot_be_used_is_refused(text, message):
    with pytest.raises(LabelError) as error:
        find_label(text, FILE)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x: {horizon: 1 h}", "expected exactly one of events, engagement_s and page_views, got none"),
        ("x: {horizon: 1 h, page_views: 3, absent: true}", "absent: requires events"),
        ("x: {horizon: 1 h, page_view: 3}", "unknown field"),
        ("x: {horizon: 1 h, page_views: 3, session_gap: 60 min}", "must be less than the horizon of 1 h .got 60 min"),
        ("x: {horizon: 1 h, page_views: 3, session_gap: 0 s}", "session_gap: must be more than 0"),
        ("x: [", "cannot be read"),
        ('x: {horizon: "1 h\\n", page_views: 3}', "Expected `str` matching regex .* - at `.[.]horizon`"),
        ("x: {horizon: 10000000000 d, page_views: 3}", "Expected `str` matching regex .* - at `.[.]horizon`"),
    ],
)
def test_an_entry_that_breaks_a_rule_is_refused_by_name(tmp_path, content, message):
    file = tmp_path / "labels.yaml"
    file.write_text(content)
    with pytest.raises(LabelError, match=message):
        find_label("x", file)


def test_labels_that_mean_the_same_are_the_same_however_they_are_written():
    label = Label(events=("purchase", "form_submit"), horizon="30 min")
    assert label.is_same_as(Label(events=("form_submit", "purchase"), horizon="1800 s"))
    assert label.is_same_as(Label(events=("form_submit", "purchase"), horizon="30 min", rows=label.scored_events))


@pytest.mark.parametrize(
    "changes",
    [
        {"horizon": "31 min"},
        {"session_gap": "10 min"},
        {"events": ("form_submit",)},
        {"absent": True},
        {"rows": ("add_to_cart",)},
        {"events": None, "page_views": 1},
    ],
)
def test_labels_that_differ_in_meaning_are_not_the_same(changes):
    assert not CONVERTED.is_same_as(msgspec.structs.replace(CONVERTED, **changes))


def test_a_label_without_new_keys_is_written_as_earlier_releases_read_it():
    assert msgspec.json.encode(CONVERTED) == b'{"horizon":"30 min","events":["purchase"]}'


@pytest.mark.parametrize("name", NAMES)
def test_the_sentence_of_an_old_bundle_is_the_label_that_it_described(name):
    sentences = {
        "converted": "purchase by the same user within 30 min after the event",
        "abandoned": "no purchase by the same user within 24 h after add_to_cart",
        "engaged": "120 s of engagement or more by the same user within 30 min after the event",
        "deep_visit": "5 page views or more by the same user within 30 min after the event",
    }
    assert label_of_sentence(sentences[name]) == find_label(name, FILE)


@pytest.mark.parametrize("sentence", ["bought", "", "shopping by the same user within 1 h after the event"])
def test_a_sentence_that_describes_no_label_is_refused(sentence):
    with pytest.raises(LabelError, match=f"label '{sentence}'"):
        label_of_sentence(sentence)


event = st.tuples(st.integers(0, 3), st.integers(0, 12), st.integers(0, 5))


@given(st.lists(event, min_size=1, max_size=25), st.integers(1, 6), st.none() | st.integers(1, 5))
def test_sums_after_are_what_the_definition_says_in_any_order_of_events(triples, horizon_ms, session_gap_ms):
    user, time_ms, amount = np.array(triples, np.int64).T

    def counts(who: int, time: int, other: int, when: int) -> bool:
        between = sorted(at for one, at, _ in triples if one == who and time <= at <= when)
        pauses = [later - earlier for earlier, later in zip(between, between[1:])]
        in_session = session_gap_ms is None or max(pauses, default=0) <= session_gap_ms
        return other == who and time < when <= time + horizon_ms and in_session

    expected = [sum(much for *event, much in triples if counts(who, time, *event)) for who, time, _ in triples]
    assert sum_after(user, time_ms, amount, horizon_ms, session_gap_ms).tolist() == expected
