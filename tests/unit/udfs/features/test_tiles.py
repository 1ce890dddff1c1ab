import math
import re
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from udfs.contracts.event_layout import Tiles
from udfs.contracts.packed_events import EVENT, EVENT_KINDS
from udfs.contracts.profiles import NO_PROFILE, PROFILE
from udfs.features.computer import FeatureComputer
from udfs.features.declaration_file import DeclarationError, FeatureFile, declaration_of
from udfs.features.user_slots import EVENT_ROW, USER_ROW, UserSlots, earlier_layouts, layout_id

HOUR, DAY = 3_600_000, 86_400_000
MIDNIGHT = 20_000 * DAY
HISTORY_LENGTH = 4
TEXTS = {
    "purchases_7d": "count(kind == purchase, over=7d, by=1d)",
    "spent_7d": "sum(value, kind == purchase, over=7d, by=1d)",
    "spent_3d": "sum(value, kind == purchase, over=3d, by=1d)",
    "events_6h": "count(over=6h, by=2h)",
    "share": "count(kind == purchase, over=7d, by=1d) / count(over=6h, by=2h)",
    "recent": "count(over=7d, by=1d) - count(over=history)",
}


def declared(texts: dict[str, str]):
    entries = {name: {"value": text, "unit": "events", "doc": "a total"} for name, text in texts.items()}
    return declaration_of(msgspec.convert({"features": {"own": entries}}, FeatureFile))


DECLARATION = declared(TEXTS)


def events(*rows: tuple[int, str, float]) -> np.ndarray:
    """Events in order of arrival: time after MIDNIGHT in ms, kind, value."""
    records = np.zeros(len(rows), EVENT)
    for record, (at, kind, value) in zip(records, rows):
        record["time_ms"], record["kind"], record["value"] = MIDNIGHT + at, EVENT_KINDS.index(kind), value
    return records


def total(records: np.ndarray, kind: str | None, over: int, by: int, of_values: bool) -> float:
    """What tiles say of all records at the last one: slow and obvious."""
    now, newest = records[-1]["time_ms"] // by, records["time_ms"].max() // by
    buckets, newest_then = {}, 0
    count = over // by + 1
    for record in records:
        number = int(record["time_ms"] // by)
        newest_then = max(newest_then, number)
        if number <= newest_then - count or kind is not None and record["kind"] != EVENT_KINDS.index(kind):
            continue
        added = (0.0 if math.isnan(record["value"]) else record["value"]) if of_values else 1
        buckets[number] = np.float32(buckets.get(number, np.float32(0)) + np.float32(added))
    return sum(float(buckets.get(number, 0)) for number in range(now, now - count, -1) if number > newest - count)


def vectors(records: np.ndarray, declaration=DECLARATION) -> np.ndarray:
    """The features of each record of one user, as training computes them."""
    computer = FeatureComputer(history_length=HISTORY_LENGTH, declaration=declaration)
    ends = np.arange(1, len(records) + 1)
    firsts = np.minimum.accumulate(records["time_ms"])
    profiles = np.frombuffer(NO_PROFILE * len(records), PROFILE)
    return computer.compute(records, np.zeros(len(records), np.int64), ends, ends, firsts, profiles)


def appended(records: np.ndarray, declaration=DECLARATION, layout=None) -> np.ndarray:
    """The same, as the job computes them."""
    layout = layout or declaration.layout
    computer = FeatureComputer(history_length=HISTORY_LENGTH, declaration=declaration, layout=layout)
    users = UserSlots.empty(2, HISTORY_LENGTH, layout)
    rows = np.zeros(len(records), USER_ROW)
    rows["kind"], rows["event"] = EVENT_ROW, records
    return computer.append(rows, np.ones(len(records), np.int32), users, 0)[0]


def column(matrix: np.ndarray, name: str) -> list[float]:
    return matrix[:, DECLARATION.names.index(name)].tolist()


steps = st.one_of(st.integers(-2 * DAY, 3 * DAY), st.sampled_from([0, 1, HOUR, 2 * HOUR - 1, 2 * HOUR, DAY, 9 * DAY]))
rows = st.tuples(steps, st.sampled_from(["purchase", "view_item"]), st.sampled_from([math.nan, 0.0, 0.1, 5.0, 1e6]))


@given(st.lists(rows, min_size=1, max_size=40))
def test_tiles_give_what_a_slow_computation_gives_in_training_and_in_the_job(given_rows):
    at, placed = 30 * DAY, []
    for step, kind, value in given_rows:
        at = max(at + step, 0)
        placed.append((at, kind, value))
    records = events(*placed)
    matrix = vectors(records)
    assert matrix.tobytes() == appended(records).tobytes()
    for end in range(1, len(records) + 1):
        seen = records[:end]
        row = matrix[end - 1]
        assert row[0] == np.float32(total(seen, "purchase", 7 * DAY, DAY, False))
        assert row[1] == np.float32(total(seen, "purchase", 7 * DAY, DAY, True))
        assert row[3] == np.float32(total(seen, None, 6 * HOUR, 2 * HOUR, False))


def test_tiles_count_what_the_history_has_lost():
    records = events(*((hour * HOUR, "purchase", 1.0) for hour in range(48)))
    assert column(vectors(records), "purchases_7d")[-1] == 48
    assert column(vectors(records), "recent")[-1] == 48 - HISTORY_LENGTH


def test_a_window_of_tiles_begins_with_the_bucket_that_it_begins_in():
    records = events((10 * HOUR, "purchase", 1.0), (7 * DAY + 12 * HOUR, "view_item", 1.0), (8 * DAY, "view_item", 1.0))
    assert column(vectors(records), "purchases_7d") == [1, 1, 0]


def test_a_shorter_window_of_the_same_tiles_reads_fewer_buckets():
    records = events((0, "purchase", 2.0), (4 * DAY, "purchase", 3.0))
    assert column(vectors(records), "spent_7d") == [2, 5]
    assert column(vectors(records), "spent_3d") == [2, 3]
    assert [tiles.count for tiles in DECLARATION.layout.tiles if tiles.text.startswith("sum")] == [8]


def test_an_event_that_is_late_counts_in_its_bucket_as_long_as_that_is_kept():
    late = events((9 * DAY, "view_item", 1.0), (5 * DAY, "purchase", 1.0), (9 * DAY, "view_item", 1.0))
    assert column(vectors(late), "purchases_7d") == [0, 1, 1]
    too_late = events((9 * DAY, "view_item", 1.0), (DAY, "purchase", 1.0), (9 * DAY, "view_item", 1.0))
    assert column(vectors(too_late), "purchases_7d") == [0, 0, 0]


def test_a_count_stops_at_the_largest_number_of_its_bucket():
    records = np.repeat(events((0, "purchase", 1.0)), 65_600)
    assert column(appended(records), "purchases_7d")[-1] == 65_535


def test_users_have_tiles_of_their_own():
    computer = FeatureComputer(history_length=HISTORY_LENGTH, declaration=DECLARATION)
    users = UserSlots.empty(2, HISTORY_LENGTH, DECLARATION.layout)
    batch = np.zeros(4, USER_ROW)
    batch["kind"], batch["event"] = EVENT_ROW, events(*[(0, "purchase", 1.0)] * 4)
    matrix, _ = computer.append(batch, np.array([0, 1, 1, 1], np.int32), users, 0)
    assert column(matrix, "purchases_7d") == [1, 1, 2, 3]


def test_rows_in_any_order_and_of_several_users_have_their_own_tiles():
    one, other = events(*((hour * HOUR, "purchase", 1.0) for hour in range(9))), events((DAY, "purchase", 5.0))
    computer = FeatureComputer(history_length=HISTORY_LENGTH, declaration=DECLARATION)
    records = np.concatenate([one, other])
    starts, ends = np.array([0, 9, 0, 0, 9]), np.array([9, 10, 3, 9, 10])
    zeros, profiles = np.full(5, MIDNIGHT), np.frombuffer(NO_PROFILE * 5, PROFILE)
    matrix = computer.compute(records, starts, ends, ends - starts, zeros, profiles)
    assert column(matrix, "purchases_7d") == [9, 1, 3, 9, 1]


def test_a_job_keeps_the_tiles_of_its_declaration_whatever_a_model_needs():
    model = declared({"spent_3d": TEXTS["spent_3d"]})
    records = events((0, "purchase", 2.0), (4 * DAY, "purchase", 3.0))
    assert appended(records, model, DECLARATION.layout).ravel().tolist() == [2, 3]
    assert DECLARATION.layout.without(model.layout) == []
    longer = declared({"spent_30d": "sum(value, kind == purchase, over=30d, by=1d)"})
    assert DECLARATION.layout.without(longer.layout) == ["totals of sum(value, kind == purchase) in 31 buckets of 24 h"]


def test_state_from_before_the_later_tiles_can_be_completed():
    layout = DECLARATION.layout
    assert [len(earlier.tiles) for earlier in earlier_layouts(layout)] == list(range(len(layout.tiles)))
    shorter = replace(layout, tiles=(replace(layout.tiles[0], count=9), *layout.tiles[1:]))
    assert len({layout_id(each) for each in (layout, shorter, *earlier_layouts(layout))}) == len(layout.tiles) + 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("count(over=7d, by=2d)", "over= must be 1 to 400 times by="),
        ("count(over=1d, by=2d)", "over= must be 1 to 400 times by="),
        ("count(over=30d, by=1h)", "over= must be 1 to 400 times by="),
        ("count(over=10s, by=1s)", "by= must be at least 1m"),
        ("count(over=session, by=1h)", "by= needs over= with a duration"),
        ("count(by=1h)", "by= needs over= with a duration"),
        ("mean(value, over=7d, by=1d)", "by= goes with count(...) and sum(...) only"),
        ("count(item == now.item, over=7d, by=1d)", "a condition can't compare with now"),
        ("count(not kind == other, over=7d, by=1d)", "kind can't be compared with other"),
        (
            "count(over=400d, by=1d) + sum(value, over=300d, by=1d) + count(kind == search, over=20d, by=1d)",
            "totals with by= take 2060 bytes of each user's state, at most 2048",
        ),
    ],
)
def test_tiles_that_can_not_be_kept_are_refused(text, message):
    with pytest.raises(DeclarationError, match=re.escape(message)):
        declared({"x": text})


def test_the_same_tiles_are_kept_once():
    twice = declared({"a": "count(over=2d, by=1d)", "b": "2 * count( over = 1d, by=1d )", "c": "count(over=2h, by=1h)"})
    assert twice.layout.tiles == (Tiles("count()", DAY, 3), Tiles("count()", HOUR, 3))
