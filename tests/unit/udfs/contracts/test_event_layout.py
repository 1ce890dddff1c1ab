import json
from dataclasses import replace
from datetime import date

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from udfs.contracts.clicks import ClickDecoder, click_of, click_type, pack_click, packer, write_click
from udfs.contracts.event_layout import STANDARD_LAYOUT, EventLayout, OwnColumn, PopulationColumn, Publication
from udfs.contracts.packed_events import EVENT
from udfs.contracts.rejects import Reject
from udfs.features.user_slots import LAYOUT, earlier_layouts, layout_id
from udfs.mapping.adapter import ClickAdapter
from udfs.mapping.definition import mapping_of
from udfs.mapping.topic import ClickTopic

NOW = 1_767_225_600_000
SCORE = OwnColumn("quiz_score", "number", "quiz_score", 2, 10)
PLAN = OwnColumn("plan", "category", "plan", 1, names=("free", "pro"))
COUPON = OwnColumn("coupon", "identifier", "coupon_id", 4)
LAYOUT_OF_ALL = EventLayout((("quiz_completed", 100),), (SCORE, PLAN, COUPON))


def record(**fields) -> bytes:
    return msgspec.json.encode({"user_id": "ada", "event_name": "quiz_completed", "event_time": NOW, **fields})


def packed(payload: bytes, layout: EventLayout = LAYOUT_OF_ALL, **topic) -> np.void:
    decoder = ClickTopic(layout=layout, **topic).decoder()
    return np.frombuffer(decoder.pack(decoder.accept(payload, NOW)), layout.dtype)[0]


def own(payload: bytes, **topic) -> list[int]:
    event = packed(payload, **topic)
    return [int(event[column.stored_name]) for column in LAYOUT_OF_ALL.own_columns]


NOTHING = [-(2**15), 0, 0]


def test_without_anything_of_its_own_a_layout_is_that_of_standard_events():
    assert STANDARD_LAYOUT.dtype is EVENT
    assert EventLayout((("quiz_completed", 100),)).dtype is EVENT
    assert STANDARD_LAYOUT.empty_record == bytes(EVENT.itemsize)


def test_own_columns_follow_the_others_in_whole_times_eight_bytes():
    dtype = LAYOUT_OF_ALL.dtype
    assert dtype.itemsize == 48
    assert [dtype.fields[name] for name in EVENT.names] == [EVENT.fields[name] for name in EVENT.names]
    assert [dtype.fields[column.stored_name][1] for column in (SCORE, PLAN, COUPON)] == [40, 42, 43]


def test_an_own_kind_has_its_code_and_others_are_other():
    assert packed(record())["kind"] == 100
    assert packed(record(event_name="quiz_started"))["kind"] == 0
    assert packed(record(), STANDARD_LAYOUT)["kind"] == 0


def test_own_columns_are_filled_from_the_click():
    assert own(record(quiz_score=7.25, plan="Pro", coupon_id="SUMMER")) == [72, 2, own_hash("SUMMER")]


def own_hash(text: str) -> int:
    return COUPON.encoder()(text)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, NOTHING),
        ({"quiz_score": None, "plan": None, "coupon_id": None}, NOTHING),
        ({"quiz_score": "7.3"}, [73, 0, 0]),
        ({"quiz_score": 1e9}, [2**15 - 1, 0, 0]),
        ({"quiz_score": -1e9}, [-(2**15) + 1, 0, 0]),
        ({"quiz_score": "many"}, NOTHING),
        ({"quiz_score": "1" + "0" * 400}, NOTHING),
        ({"quiz_score": [1]}, NOTHING),
        ({"plan": "enterprise"}, NOTHING),
        ({"plan": 3}, NOTHING),
        ({"plan": {"name": "pro"}}, NOTHING),
        ({"coupon_id": ""}, NOTHING),
        ({"plan": "pro", "percent_scrolled": "50"}, [-(2**15), 2, 0]),  # which only the lenient decoder reads
    ],
)
def test_what_an_own_column_can_not_hold_is_missing_or_cut(fields, expected):
    assert own(record(**fields)) == expected


def test_an_identifier_may_be_a_number():
    assert own(record(coupon_id=42)) == own(record(coupon_id="42"))


def test_an_own_column_may_be_of_a_field_that_clicks_have():
    slot = EventLayout(own_columns=(OwnColumn("slot", "identifier", "creative_slot", 4),))
    assert packed(record(creative_slot="hero"), slot)["own_slot"] == own_hash("hero")


@pytest.mark.parametrize("field", ["visitor", "quiz-score", "class", "Größe", "a.b", "own_0"])
def test_a_field_may_have_any_name(field):
    layout = EventLayout(own_columns=(SCORE, OwnColumn("x", "identifier", field, 4)))
    assert packed(record(**{field: "SUMMER"}), layout)["own_x"] == own_hash("SUMMER")
    assert packed(record(**{field: 7, "percent_scrolled": "50"}), layout)["own_x"] == own_hash("7")
    click = ClickDecoder(layout=layout).accept(record(**{field: "SUMMER"}), NOW)
    assert json.loads(write_click(click))[field] == "SUMMER"
    assert click.visitor is None


@given(st.floats(allow_nan=False, allow_infinity=False))
@example(1.7976931348623157e308)
def test_any_number_is_kept_or_cut_and_never_counts_as_missing(number):
    assert SCORE.missing < SCORE.encoder()(number) < 2**15


def test_the_rest_of_an_event_does_not_depend_on_own_columns():
    payload = record(event_name="purchase", value=9.5, plan="pro", transaction_id="t-1")
    click = ClickDecoder().accept(payload, NOW)
    assert packed(payload).tobytes()[: EVENT.itemsize] == pack_click(click)


def test_a_written_click_keeps_the_fields_of_own_columns():
    click = ClickDecoder(layout=LAYOUT_OF_ALL).accept(record(quiz_score=3, plan="free"), NOW)
    assert json.loads(write_click(click)) == json.loads(record(quiz_score=3.0, plan="free"))


def test_a_mapping_keeps_columns_of_rows_for_own_columns():
    columns = {"user_id": "who", "event_name": "what", "event_time": "when"}
    mapping = mapping_of({"columns": columns, "keep": {"plan": "account.plan"}, "time_format": "epoch_ms"}, "test")
    row = {"who": "ada", "what": "quiz_completed", "when": NOW, "account": {"plan": "pro"}}
    assert own(msgspec.json.encode(row), mapping=mapping) == [-(2**15), 2, 0]
    assert own(msgspec.json.encode(row | {"account": None}), mapping=mapping) == NOTHING


def test_a_kept_column_follows_the_missing_texts_of_the_mapping_and_is_reported_if_it_is_absent():
    columns = {"user_id": "who", "event_name": "what", "event_time": "when"}
    content = {"columns": columns, "keep": {"coupon_id": "code"}, "missing": ["-"], "time_format": "epoch_ms"}
    adapter = ClickAdapter(mapping_of(content, "test"))
    row = {"who": "ada", "what": "quiz_completed", "when": NOW}
    assert "coupon_id" not in adapter.adapt(row)
    assert adapter.absent == ["code"]
    assert "coupon_id" not in adapter.adapt(row | {"code": "-"})
    assert adapter.adapt(row | {"code": "SUMMER"})["coupon_id"] == "SUMMER"
    assert adapter.absent == []


@pytest.mark.parametrize("value", [b"SUMMER", date(2026, 5, 1)])
def test_a_value_that_json_does_not_have_is_missing_and_rejects_nothing(value):
    click = {"user_id": "ada", "event_name": "x", "event_time": NOW}
    event = packer(LAYOUT_OF_ALL)(click_of(click | {"coupon_id": value}, click_type(LAYOUT_OF_ALL)))
    assert np.frombuffer(event, LAYOUT_OF_ALL.dtype)["own_coupon"] == 0
    with pytest.raises(Reject, match="expected a number"):
        click_of(click | {"price": value})


def test_the_records_of_a_layout_begin_with_those_of_its_earlier_layouts():
    payload = record(quiz_score=7, plan="pro", coupon_id="SUMMER")
    whole = packed(payload).tobytes()
    earlier = earlier_layouts(LAYOUT_OF_ALL)
    assert [layout.own_columns for layout in earlier] == [(), (SCORE,), (SCORE, PLAN)]
    for layout in earlier:
        assert whole.startswith(packed(payload, layout).tobytes()[: layout.used_bytes])


def test_the_layout_of_state_changes_with_any_part_of_a_column_and_not_with_kinds():
    others = [
        replace(SCORE, scale=1),
        replace(SCORE, bytes=4),
        replace(SCORE, name="score"),
        replace(SCORE, field="score"),
    ]
    ids = {layout_id(EventLayout(own_columns=(column,))) for column in (SCORE, PLAN, *others)}
    assert len(ids) == 6
    assert layout_id(EventLayout((("quiz_completed", 100),))) == LAYOUT


def test_a_layout_tells_what_it_lacks_of_another():
    assert LAYOUT_OF_ALL.without(EventLayout(own_columns=(PLAN,))) == []
    assert STANDARD_LAYOUT.without(LAYOUT_OF_ALL) == [
        "the kind of event quiz_completed with code 100",
        "the column quiz_score",
        "the column plan",
        "the column coupon",
    ]
    changed = EventLayout((("quiz_completed", 101),), (replace(SCORE, scale=1),))
    assert len(LAYOUT_OF_ALL.without(changed)) == 2


VIEWS, ALL = PopulationColumn("views", "category", "view_item"), PopulationColumn("all")
COUNTING = replace(LAYOUT_OF_ALL, own_columns=(SCORE, VIEWS, COUPON, ALL))


def test_what_the_population_did_is_missing_until_it_is_filled():
    event = packed(record(quiz_score=7, coupon_id="SUMMER", views=3, all=4), COUNTING)
    assert np.isnan(event["own_views"])
    assert np.isnan(event["own_all"])
    assert (event["own_quiz_score"], event["own_coupon"]) == (70, own_hash("SUMMER"))
    assert np.isnan(np.frombuffer(COUNTING.empty_record, COUNTING.dtype)["own_views"]).all()
    assert (COUNTING.population_columns, COUNTING.click_columns) == ((VIEWS, ALL), (SCORE, COUPON))


def test_columns_of_the_population_are_of_state_as_the_others_are():
    earlier = [layout.own_columns for layout in earlier_layouts(COUNTING)]
    assert earlier == [(), (SCORE,), (SCORE, VIEWS), (SCORE, VIEWS, COUPON)]
    columns = (VIEWS, replace(VIEWS, by="item"), replace(VIEWS, kind=None), replace(VIEWS, name="seen"))
    assert len({layout_id(EventLayout(own_columns=(column,))) for column in columns}) == 4
    # Packed events stay readable when tables are made by another schedule.
    assert layout_id(replace(COUNTING, publication=Publication(every_ms=1))) == layout_id(COUNTING)


def test_a_layout_lacks_tables_by_another_schedule():
    other = replace(COUNTING, publication=Publication(half_life_ms=1))
    assert COUNTING.without(other) == ["tables of the population made by the same schedule (key population)"]
    assert COUNTING.without(replace(LAYOUT_OF_ALL, publication=other.publication)) == ["the column plan"]


def test_layouts_without_the_population_have_the_ids_that_state_has():
    """Literal values: a change would make state of existing jobs unreadable."""
    assert layout_id(LAYOUT_OF_ALL) == 535446804
