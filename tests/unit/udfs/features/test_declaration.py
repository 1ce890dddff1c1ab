"""Feature files: what they declare, which errors are reported how, and what their hashes depend on."""

import json
import pickle
from contextlib import suppress
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.support.random_declarations import feature_files
from udfs.contracts.event_layout import TILE_BYTES, PopulationColumn, Publication
from udfs.contracts.packed_events import DEVICES, EVENT_KINDS
from udfs.contracts.profiles import AGE_BANDS
from udfs.features.declaration import Declaration, merged
from udfs.features.declaration_file import (
    STANDARD,
    DeclarationError,
    from_json,
    load_declaration,
    population,
    to_json,
)
from udfs.features.schema import schema_hash

MINUTE, HOUR = 60_000, 3_600_000


def file_of(values: dict[str, str], **others: Any) -> dict[str, Any]:
    """The content of a file with expressions by name, in the group g."""
    return {
        **others,
        "features": {"g": {name: {"value": value, "unit": "u", "doc": "d"} for name, value in values.items()}},
    }


def declared(values: dict[str, str], **others: Any) -> Declaration:
    return of_content(file_of(values, **others))


def of_content(content: Any) -> Declaration:
    return from_json(json.dumps(content).encode(), "f.json")


def message(content: Any) -> str:
    """The error of a file's content, without the file's name."""
    with pytest.raises(DeclarationError) as caught:
        of_content(content)
    assert "\n" not in str(caught.value)
    file, _, rest = str(caught.value).partition(": ")
    assert file == "f.json"
    return rest


@pytest.fixture
def load(tmp_path):
    """Loads a text as features.yaml; errors begin with its path, which is cut off."""

    def load_text(text: str | bytes) -> Declaration:
        path = tmp_path / "features.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        try:
            return load_declaration(path)
        except DeclarationError as error:
            raise DeclarationError(str(error).removeprefix(f"{path}: ")) from None

    return load_text


EXAMPLE = """
kinds: {rented: 200, quiz_done: 101}
columns:
  margin: {type: number, bytes: 2, scale: 100}
  plan: {type: category, field: customer_plan, names: [free, gold plus]}
session_gap: 10min
windows: [5m, 24h]
features:
  rentals:
    rented_{window}:
      value: count(kind == rented, over={window})
      unit: events
      doc: rented in the last {window}
  other:
    plan:
      value: |
        now.plan
      unit: code
      doc: the plan
    busy:
      value: >
        count(kind == rented and plan == "gold plus",
              over=session) / 2
      unit: share
      doc: busy
"""


def test_a_file_declares_kinds_columns_and_features_in_its_order(load):
    declaration = load(EXAMPLE)
    assert declaration.names == ("rented_5m", "rented_24h", "plan", "busy")
    assert declaration.session_gap_ms == 10 * MINUTE
    assert declaration.layout.own_kinds == (("quiz_done", 101), ("rented", 200))
    assert declaration.layout.kinds == {name: code for code, name in enumerate(EVENT_KINDS)} | {
        "quiz_done": 101,
        "rented": 200,
    }
    assert [column.name for column in declaration.layout.own_columns] == ["margin", "plan"]
    rented, busy = declaration["rented_24h"], declaration["busy"]
    assert (rented.group, rented.unit, rented.description) == ("rentals", "events", "rented in the last 24h")
    assert rented.text == "count(kind == rented, over=24h)"
    assert busy.text == 'count(kind == rented and plan == "gold plus", over=session) / 2'


def test_an_empty_file_of_features_declares_none():
    assert of_content({}).names == ()


def test_a_file_can_extend_the_standard_features(load):
    declaration = load("extends: standard\n" + EXAMPLE.replace("session_gap: 10min\n", ""))
    assert declaration.names == (*STANDARD.names, "rented_5m", "rented_24h", "plan", "busy")
    assert declaration.session_gap_ms == STANDARD.session_gap_ms
    assert [declaration[name].text for name in STANDARD.names] == [feature.text for feature in STANDARD.features]


def test_a_file_can_extend_those_of_the_population(load):
    declaration = load(
        "extends: population\n"
        "kinds: {rented: 200}\n"
        "columns: {plan: {type: category, names: [pro]},\n"
        "  rents: {type: population, by: plan, kind: rented},\n"
        "  r: {type: population, by: plan, kind: rented, rate: true}}\n"
        "population: {every: 15m, delay: 6m, half_life: 7d}\n"
        "features: {g: {rents: {value: now.rents / now.all_events, unit: ratio, doc: d}}}\n"
    )
    assert declaration.names == (*population().names, "rents")
    assert population().names[: len(STANDARD.names)] == STANDARD.names
    columns = population().layout.own_columns
    assert declaration.layout.own_columns[: len(columns)] == columns
    assert declaration.layout.population_columns == (
        *columns,
        PopulationColumn("rents", "plan", "rented"),
        PopulationColumn("r", "plan", "rented", rate=True),
    )
    assert declaration.layout.publication == Publication(15 * MINUTE, 6 * MINUTE, 7 * 24 * HOUR)
    assert from_json(to_json(declaration), "f.json").layout == declaration.layout
    assert load("extends: population").layout.publication == population().layout.publication


def test_without_own_kinds_the_standard_features_mean_the_same():
    extended = declared({"mine": "now.scroll"}, extends="standard")
    assert [feature.value for feature in extended.features[:-1]] == [feature.value for feature in STANDARD.features]


def test_own_kinds_are_no_longer_other():
    others = [declared({"n": "count(kind == other)"}, kinds=kinds)["n"].value.where.codes for kinds in ({}, {"x": 200})]
    assert others[0] - others[1] == {200}


def test_each_window_makes_a_feature():
    windows = ["30m", "24h", "90s"]
    declaration = declared({"n_{window}": "count(over={window}) / count(over={window})"}, windows=windows)
    assert declaration.names == ("n_30m", "n_24h", "n_90s")
    assert declaration["n_90s"].text == "count(over=90s) / count(over=90s)"


def test_windows_are_for_names_with_the_placeholder_only():
    assert declared({"n": "count(over=1h)"}, windows=["30m", "24h"]).names == ("n",)


def test_an_expression_may_be_on_several_lines():
    assert declared({"n": "count(\n  over=30m\n)\n"})["n"].text == "count( over=30m )"


NAME_RULE = "expected a lower-case letter, then up to 63 lower-case letters, digits and underscores"
ONE = {"value": "1", "unit": "u", "doc": "d"}


def one(**changes: Any) -> dict[str, Any]:
    return {"features": {"g": {"n": ONE | changes}}}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "Expected `object`, got `null`"),
        ([], "Expected `object`, got `array`"),
        ("features", "Expected `object`, got `str`"),
        ({"feature": {}}, "key feature: unknown key"),
        ({"extends": "mine"}, "key extends: Invalid enum value 'mine'"),
        (
            {"extends": "standard", "session_gap": "10m"},
            "key session_gap: the standard features have one: leave it out, or leave out extends",
        ),
        ({"session_gap": 30}, "key session_gap: Expected `str | null`, got `int`"),
        ({"windows": "30m"}, "key windows: Expected `array`, got `str`"),
        ({"windows": ["30 m"]}, r"key windows[0]: Expected `str` matching regex '^[1-9]\\d{0,8}(ms|s|m|min|h|d)$'"),
        ({"features": None}, "key features: Expected `object`, got `null`"),
        ({"features": {"g": []}}, "key features[...]: Expected `object`, got `array`"),
        ({"features": {"g": {"n": "1"}}}, "key features.g.n: Expected `object`, got `str`"),
        ({"features": {"g": {"n": {"value": "1", "unit": "u"}}}}, "key features.g.n.doc: missing"),
        (one(values="1"), "key features.g.n.values: unknown key"),
        (one(value=5), "key features.g.n.value: Expected `str | null`, got `int`"),
        (one(value=""), "key features.g.n.value: Expected `str` of length >= 1"),
        (one(value="1" * 4_001), "key features.g.n.value: Expected `str` of length <= 4000"),
        (one(unit="u" * 33), "key features.g.n.unit: Expected `str` of length <= 32"),
        (one(doc=""), "key features.g.n.doc: Expected `str` of length >= 1"),
        (one(doc="d" * 401), "key features.g.n.doc: Expected `str` of length <= 400"),
        (
            one(value="count(kind == purchased)"),
            "key features.g.n.value: purchased: kind has no purchased; did you mean purchase?",
        ),
        (one(value="9" * 400), "key features.g.n.value: a number must be finite: there is one of more than 308 digits"),
        (one(value="1" + "+1" * 999), "key features.g.n.value: nested more than 100 deep: make several features of it"),
        ({"features": {"g": {"N": ONE}}}, f"key features.g.N: 'N': {NAME_RULE}"),
        ({"features": {"g": {"n@2": ONE}}}, f"key features.g.n@2: 'n@2': {NAME_RULE}"),
        ({"features": {"g": {"": ONE}}}, f"key features.g.: '': {NAME_RULE}"),
        ({"features": {"g": {"n" * 65: ONE}}}, f"key features.g.{'n' * 65}: '{'n' * 65}': {NAME_RULE}"),
        (
            {"features": {"g": {"n_{window}": ONE}}},
            "key features.g.n_{window}: {window} needs windows, such as windows: [30m, 24h]",
        ),
        (
            one(value="count(over={window})"),
            "key features.g.n: its value has {window}, so the name must have it too, as in n_{window}",
        ),
        (one(value=None), "key features.g.n: expected one of value and python, got neither"),
        (one(python="a.b"), "key features.g.n: expected one of value and python, got both"),
        (
            one(value=" + ".join(f"count(scroll > {number}, over=400d, by=1d)" for number in range(12))),
            f"key features: totals with by= take {12 * (4 + 401 * 2)} bytes of each user's state, at most "
            f"{TILE_BYTES}: use fewer, or longer ones in by=",
        ),
        ({"windows": ["1h"], "features": {"g": {"{window}": ONE}}}, f"key features.g.{{window}}: '1h': {NAME_RULE}"),
        ({"features": {"g": {"n": ONE}, "h": {"n": ONE}}}, "key features: n is declared twice: rename one"),
        (
            {"extends": "standard", "features": {"g": {"value": ONE}}},
            "key features: value is declared twice: rename one",
        ),
        (
            {"windows": ["30m", "30m"], "features": {"g": {"n_{window}": ONE}}},
            "key features: n_30m is declared twice: rename one",
        ),
        ({"kinds": ["rented"]}, "key kinds: Expected `object`, got `array`"),
        ({"kinds": {"rented": "200"}}, "key kinds.rented: Expected `int`, got `str`"),
        ({"kinds": {"rented": True}}, "key kinds.rented: Expected `int`, got `bool`"),
        ({"kinds": {"rented": 99}}, "key kinds.rented: Expected `int` >= 100"),
        ({"kinds": {"rented": 256}}, "key kinds.rented: Expected `int` <= 255"),
        (
            {"kinds": {"to rent": 200}},
            "key kinds: 'to rent': expected 1 to 40 letters, digits and underscores (GA4's rule)",
        ),
        (
            {"kinds": {"r" * 41: 200}},
            f"key kinds: '{'r' * 41}': expected 1 to 40 letters, digits and underscores (GA4's rule)",
        ),
        ({"kinds": {"purchase": 200}}, "key kinds: purchase is a standard kind; leave it out"),
        ({"kinds": {"a": 200, "b": 200}}, "key kinds: code 200 is given to several kinds; give each its own"),
    ],
)  # fmt: skip
def test_what_breaks_a_rule_is_refused_with_key_and_rule(content, expected):
    assert message(content) == expected


LENGTH = r"'^[1-9]\\d{0,8}(ms|s|m|min|h|d)$'"


def column(**entry: Any) -> dict[str, Any]:
    return {"columns": {"c": entry}}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (column(), "key columns.c.type: missing"),
        (column(type="text"), "key columns.c.type: Invalid enum value 'text'"),
        (column(type="number", bytes=3), "key columns.c.bytes: Invalid enum value 3"),
        (column(type="number", scale=0), "key columns.c.scale: Expected `int` >= 1"),
        (column(type="number", scale=1_000_001), "key columns.c.scale: Expected `int` <= 1000000"),
        (column(type="number", names=["a"]), "key columns.c.names: number takes no names"),
        (column(type="identifier", names=["a"]), "key columns.c.names: identifier takes no names"),
        (column(type="category"), "key columns.c.names: a category needs names, such as names: [free, pro]"),
        (
            column(type="category", names=["a", "A"]),
            "key columns.c.names: each must differ from the others and from unknown",
        ),
        (
            column(type="category", names=["Unknown"]),
            "key columns.c.names: each must differ from the others and from unknown",
        ),
        ({"columns": {"C": {"type": "number"}}}, f"key columns: 'C': {NAME_RULE}"),
        ({"columns": {"is": {"type": "number"}}}, f"key columns: 'is': {NAME_RULE}"),
        (
            {"columns": {"value": {"type": "number"}}},
            "key columns: value is a standard column; choose another name",
        ),
        (
            {"columns": {f"c{number}": {"type": "number"} for number in range(9)}},
            "key columns: they take 36 bytes of each event, at most 32: leave one out, or give a number fewer bytes",
        ),
        (column(type="number", rate=True), "key columns.c.rate: number takes no rate; leave it out"),
        (
            column(type="population", kind="purchase", rate=True),
            "key columns.c.rate: a rate needs by and kind: give both, or leave it out",
        ),
        (column(type="population", field="x"), "key columns.c.field: population takes no field; leave it out"),
        (column(type="population", names=["x"]), "key columns.c.names: population takes no names"),
        (column(type="population", bytes=4), "key columns.c.bytes: only a number has it; leave it out"),
        (column(type="number", by="item"), "key columns.c.by: number takes no by; leave it out"),
        (
            column(type="category", names=["x"], kind="purchase"),
            "key columns.c.kind: category takes no kind; leave it out",
        ),
        (
            column(type="population", by="value"),
            "key columns.c.by: 'value': expected one of item, category, page, page_type, device, hour, weekday",
        ),
        (
            column(type="population", by="kind"),
            "key columns.c.by: 'kind': expected one of item, category, page, page_type, device, hour, weekday",
        ),
        (
            column(type="population", by="c"),
            "key columns.c.by: 'c': expected one of item, category, page, page_type, device, hour, weekday",
        ),
        (
            column(type="population", kind="rented"),
            f"key columns.c.kind: 'rented': expected one of {', '.join(EVENT_KINDS)}",
        ),
        (
            {"extends": "population", "columns": {"all_events": {"type": "number"}}},
            "key columns: all_events is declared twice: rename one",
        ),
        (
            {"population": {"every": "2d", "half_life": "1d"}},
            "key population.half_life: 1d is shorter than every, 2d: each table would have forgotten the one before: "
            "choose a longer one",
        ),
        ({"population": {"every": "hourly"}}, r"key population.every: Expected `str` matching regex " + LENGTH),
    ],
)
def test_a_column_that_breaks_a_rule_is_refused_with_key_and_rule(content, expected):
    assert message(content) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "Expected `object`, got `null`"),
        ("a: [", "cannot be read: while parsing"),
        ("kinds: {rented: 200, rented: 201}", "line 1: key rented is given twice"),
        ("features:\n  g:\n    n: {}\n    n: {}\n", "line 4: key n is given twice"),
        (b"\xff\xfe\xfa", "cannot be read: 'utf-8' codec can't decode"),
        ("features: !!python/object/apply:os.system ['false']", "cannot be read: could not determine a constructor"),
        ("features: {1: {}}", "Expected `str`, got `int`"),
        ("kinds: {yes: 200}", "Expected `str`, got `bool`"),
        ("session_gap: 2020-01-01", "key session_gap: Expected `str | null`, got `date`"),
        ("session_gap: soon", "key session_gap: Expected `str` matching regex"),
        ("session_gap: 0s", "key session_gap: Expected `str` matching regex"),
        ("windows: [30 minutes]", "key windows[0]: Expected `str` matching regex"),
        ("a: &a [*a]", "cannot be read: found unconstructable recursive node"),
        ("features: &a {g: *a}", "cannot be read: found unconstructable recursive node"),
        (f"kinds: {{rented: {'9' * 400}}}", "key kinds.rented: "),
    ],
)
def test_a_text_that_is_no_feature_file_is_refused_in_one_line(load, text, expected):
    with pytest.raises(DeclarationError) as caught:
        load(text)
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DeclarationError, match=r"none\.yaml: cannot be read: .*No such file"):
        load_declaration(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"{", "not JSON: "),
        (b"\xff", "not JSON: "),
        (b"", "not JSON: "),
        (b"1" * 5_000, "not JSON: "),
        (rb'{"features": {"\ud800": 1}}', "not JSON: .*surrogate pair"),
        (
            rb'{"features": {"a\nb": {"own": {"python": "math.sin", "unit": "u", "doc": "d"}}}}',
            r"key features\.a b\.own\.sha256: missing$",
        ),
    ],
)
def test_json_that_no_bundle_has_is_refused_with_its_origin_in_one_line(content, expected):
    with pytest.raises(DeclarationError, match=f"^bundle: {expected}"):
        from_json(content, "bundle")


DEEP = 700  # Python ends the recursion before; PyYAML takes the square of it


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"features: {'[' * DEEP}", id="open lists"),
        pytest.param(f"features: {'[' * DEEP}{']' * DEEP}", id="lists"),
        pytest.param(f"features: {'{a: ' * DEEP}1{'}' * DEEP}", id="mappings"),
    ],
)
def test_a_file_that_is_nested_too_deep_is_refused(load, text):
    with pytest.raises(DeclarationError):
        load(text)


def test_json_that_is_nested_too_deep_is_refused():
    with pytest.raises(DeclarationError):
        from_json(b"[" * 100_000, "bundle")


@pytest.mark.parametrize("gap", ["9" * 30 + "d", "9" * 5_000 + "d", "30", "m"])
def test_a_session_gap_that_is_no_length_of_time_is_refused(gap):
    assert message({"session_gap": gap}).startswith("key session_gap: ")


@pytest.mark.parametrize("name", ["gold  plus", " gold", "gold\n"])
def test_a_name_with_blanks_that_an_expression_can_not_have_is_refused(name):
    columns = {"plan": {"type": "category", "names": [name]}}
    assert message({"columns": columns}).endswith(": leave out blanks at its ends and double ones")


def test_a_name_with_a_line_break_is_refused_in_one_line():
    assert NAME_RULE in message({"features": {"g": {"n\n": ONE}}})


HOSTILE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
KEYS = ("extends", "kinds", "columns", "session_gap", "windows", "features")


def only_ever_refused(content: Any) -> None:
    with suppress(DeclarationError):
        of_content(content)


@given(st.dictionaries(st.sampled_from(KEYS), HOSTILE) | HOSTILE)
def test_any_content_is_read_or_refused(content):
    only_ever_refused(content)


@given(content=feature_files, data=st.data())
def test_a_file_with_anything_in_one_place_is_read_or_refused(content, data):
    places = [(content, key) for key in content]
    for holder, key in places:  # which grows
        inner = holder[key]
        if isinstance(inner, dict | list):
            places += [(inner, each) for each in (inner if isinstance(inner, dict) else range(len(inner)))]
    holder, key = data.draw(st.sampled_from(places))
    holder[key] = data.draw(HOSTILE)
    only_ever_refused(content)


@given(text=st.text(max_size=60))
def test_any_expression_is_read_or_refused(text):
    only_ever_refused(one(value=text))


@examples(30)
@given(feature_files)
def test_a_random_file_declares_the_same_in_yaml_and_in_json(content):
    from_yaml = from_json(json.dumps(yaml.safe_load(yaml.safe_dump(content, sort_keys=False))).encode(), "f.yaml")
    assert from_yaml.features == of_content(content).features


def assert_same(one: Declaration, other: Declaration) -> None:
    assert one.features == other.features
    assert one.layout == other.layout
    assert one.session_gap_ms == other.session_gap_ms
    assert schema_hash(one, one.names, 64) == schema_hash(other, other.names, 64)


@given(feature_files)
def test_a_declaration_is_read_as_it_was_written(content):
    declaration = of_content(content)
    assert_same(from_json(to_json(declaration), "f.json"), declaration)


def test_declarations_are_read_as_they_were_written(load):
    for declaration in (STANDARD, load(EXAMPLE), declared({"mine": "now.scroll"}, extends="standard")):
        assert_same(from_json(to_json(declaration), "f.json"), declaration)
        assert_same(pickle.loads(pickle.dumps(declaration)), declaration)


def test_features_in_a_group_of_the_standard_ones_follow_these_and_are_read_in_their_order():
    declaration = of_content({"extends": "standard", "features": {"session": {"mine": ONE}}})
    place = declaration.names.index("mine")
    assert {feature.group for feature in declaration.features[:place]} >= {"recency", "window", "session"}
    assert declaration.features[place - 1].group == "session" != declaration.features[place + 1].group
    assert from_json(to_json(declaration), "f.json").names == declaration.names


def test_what_is_written_is_a_file_that_extends_nothing_and_has_no_windows(load):
    written = json.loads(to_json(load(EXAMPLE)))
    assert set(written) == {"kinds", "columns", "session_gap", "features"}
    assert written["session_gap"] == "10m"
    assert written["features"]["rentals"]["rented_5m"] == {
        "value": "count(kind == rented, over=5m)", "unit": "events", "doc": "rented in the last 5m",
    }  # fmt: skip


def test_features_are_found_by_name():
    declaration = declared({"a": "1", "b": "2"})
    assert declaration.find(["b", "a"]) == [1, 0]
    assert "a" in declaration
    assert "c" not in declaration
    with pytest.raises(ValueError, match="unknown feature 'c'"):
        declaration.find(["c"])
    with pytest.raises(ValueError, match="feature 'a' is listed twice; list it once"):
        declaration.find(["a", "b", "a"])


EXPRESSIONS = {"a": "count(kind == x, over=session)", "b": "now.value / 2"}


def hash_of(values: dict[str, str] = EXPRESSIONS, names=("a", "b"), history_length: int = 64, **others: Any) -> str:
    return schema_hash(declared(values, **{"kinds": {"x": 200}} | others), names, history_length)


@pytest.mark.parametrize(
    "other",
    [
        {"values": {"a": "count( kind==x,over = session )", "b": "(now.value)/(2)"}},
        {"values": EXPRESSIONS | {"c": "now.scroll"}},
        {"values": dict(reversed(EXPRESSIONS.items()))},
        {"session_gap": "30m"},
        {"session_gap": "1800s"},
        {"windows": ["5m"]},
    ],
)
def test_the_schema_hash_stays_where_the_meaning_stays(other):
    assert hash_of(**other) == hash_of()


@pytest.mark.parametrize(
    "other",
    [
        {"values": EXPRESSIONS | {"b": "now.value / 3"}},
        {"values": EXPRESSIONS | {"a": "count(kind == x, over=history)"}},
        {"values": EXPRESSIONS | {"b2": "now.value / 2"}, "names": ("a", "b2")},
        {"names": ("b", "a")},
        {"names": ("a",)},
        {"history_length": 65},
        {"session_gap": "31m"},
        {"kinds": {"x": 201}},
        {"kinds": {"x": 200, "y": 201}},
        {"columns": {"c": {"type": "number"}}},
    ],
)
def test_the_schema_hash_changes_with_the_meaning(other):
    assert hash_of(**other) != hash_of()


@pytest.mark.parametrize(
    "change", [{"bytes": 2}, {"scale": 2}, {"field": "d"}, {"type": "identifier"}, {"type": "category", "names": ["a"]}]
)
def test_the_schema_hash_changes_with_a_column(change):
    assert hash_of(columns={"c": {"type": "number"} | change}) != hash_of(columns={"c": {"type": "number"}})


COUNTED = {"columns": {"c": {"type": "population", "by": "item"}}}


@pytest.mark.parametrize(
    "change",
    [
        {"columns": {"c": {"type": "population", "by": "category"}}},
        {"columns": {"c": {"type": "population", "by": "item", "kind": "purchase"}}},
        {"population": {"every": "2h"}},
        {"population": {"delay": "10m"}},
        {"population": {"half_life": "7d"}},
    ],
)
def test_the_schema_hash_changes_with_what_is_counted_of_the_population_and_with_its_schedule(change):
    assert hash_of(**COUNTED | change) != hash_of(**COUNTED)
    assert hash_of(**COUNTED, population={"every": "60m"}) == hash_of(**COUNTED)


def test_unit_group_and_description_are_no_part_of_the_meaning():
    changed = {"features": {"h": {"b": {"value": "now.value / 2", "unit": "v", "doc": "e"}}}}
    assert schema_hash(of_content(changed), ["b"], 64) == schema_hash(declared({"b": "now.value / 2"}), ["b"], 64)


def test_a_standard_feature_has_the_same_hash_wherever_it_is_declared():
    copied = declared({name: STANDARD[name].text for name in STANDARD.names})
    extended = declared({"mine": "now.scroll"}, extends="standard")
    expected = schema_hash(STANDARD, STANDARD.names, 64)
    assert schema_hash(copied, STANDARD.names, 64) == schema_hash(extended, STANDARD.names, 64) == expected


def test_an_own_feature_with_a_standard_name_has_another_hash():
    assert schema_hash(declared({"value": "now.scroll"}), ["value"], 64) != schema_hash(STANDARD, ["value"], 64)


def test_merged_declarations_share_what_is_the_same():
    first = declared({"a": "now.value", "b": "now.scroll"})
    second = declared({"b": "now.hour", "c": "( now.value )", "d": "now.weekday"})
    third = declared({"b": "now.weekday", "b2": "now.kind", "e": "now.hour"})
    declaration, names = merged(first, [first, second, third])
    assert {feature.name: feature.text for feature in declaration.features} == {
        "a": "now.value", "b": "now.scroll", "b@2": "now.hour", "d": "now.weekday", "b2": "now.kind",
    }  # fmt: skip
    assert names == [
        {"a": "a", "b": "b"},
        {"b": "b@2", "c": "a", "d": "d"},
        {"b": "d", "b2": "b2", "e": "b@2"},
    ]


def test_merging_goes_on_counting_where_a_name_is_taken_again():
    others = [declared({"a": f"now.scroll + {number}"}) for number in range(1, 4)]
    declaration, names = merged(declared({"a": "now.scroll"}), others)
    assert declaration.names == ("a", "a@2", "a@3", "a@4")
    assert names == [{"a": "a@2"}, {"a": "a@3"}, {"a": "a@4"}]


def test_a_feature_that_is_declared_twice_under_two_names_is_the_first():
    declaration, names = merged(declared({"a": "now.scroll", "b": "now.scroll"}), [declared({"c": "now.scroll"})])
    assert declaration.names == ("a", "b")
    assert names == [{"c": "a"}]


def test_merged_features_differ_by_the_session_gap_and_the_kinds_that_they_are_about():
    values = {"a": "count(over=session)", "b": "count(kind == other)", "c": "count(kind == x)", "d": "count()"}
    first = declared(values, kinds={"x": 200}, session_gap="10m")
    second = declared(values, kinds={"x": 201})
    _, names = merged(first, [second])
    assert names == [{"a": "a@2", "b": "b@2", "c": "c@2", "d": "d"}]


def test_a_kind_with_another_name_and_the_same_code_is_the_same():
    _, names = merged(
        declared({"a": "count(kind == x)"}, kinds={"x": 200}), [declared({"b": "count(kind == y)"}, kinds={"y": 200})]
    )
    assert names == [{"b": "a"}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now.kind", {name: code for code, name in enumerate(EVENT_KINDS)} | {"x": 200}),
        ("last(kind, over=before)", {name: code for code, name in enumerate(EVENT_KINDS)} | {"x": 200}),
        ("now.device", {name: code for code, name in enumerate(DEVICES)}),
        ("last(device, kind == x)", {name: code for code, name in enumerate(DEVICES)}),
        ("now.plan", {"unknown": 0, "free": 1, "gold plus": 2}),
        ("last(plan)", {"unknown": 0, "free": 1, "gold plus": 2}),
        ("profile.age_band", {name: code for code, name in enumerate(AGE_BANDS)}),
        ("profile.country", None),
        ("profile.known", None),
        ("now.value", None),
        ("last(value)", None),
        ("distinct(kind)", None),
        ("now.kind + 0", None),
        ("least(now.device, now.device)", None),
        ("3", None),
    ],
)
def test_a_feature_that_is_a_category_has_names_for_its_codes(text, expected):
    columns = {"plan": {"type": "category", "names": ["free", "gold plus"]}}
    declaration = declared({"n": text}, kinds={"x": 200}, columns=columns)
    assert declaration.vocabulary("n") == expected
    assert declaration.is_code("n") == (expected is not None or text == "profile.country")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("profile.country", True),
        ("now.device", True),
        ("profile.age_band + 2 * now.device", True),
        ("greatest(profile.days_since_signup, 0) > 30", True),
        ("1", True),
        ("now.kind", False),
        ("now.page_type", False),
        ("last(device)", False),
        ("user.lifetime_events", False),
        ("profile.known and now.value > 1", False),
        ("count()", False),
    ],
)
def test_an_attribute_says_what_the_user_or_the_device_is(text, expected):
    assert declared({"n": text})["n"].is_attribute == expected


def test_the_standard_features_have_attributes_and_codes():
    assert [name for name in STANDARD.names if STANDARD[name].is_attribute] == [
        "device", "profile_known", "country", "age_band", "membership_tier", "marketing_consent", "since_signup_days",
    ]  # fmt: skip
    assert [name for name in STANDARD.names if STANDARD.is_code(name)] == [
        "event_kind", "page_type", "device", "country", "age_band", "membership_tier",
    ]  # fmt: skip


def test_declarations_without_the_population_have_the_hashes_that_models_have():
    """Literal values: a change would make the job refuse models that were trained before."""
    later = "since_item_seen_s", "since_category_seen_s"
    names = [name for name in STANDARD.names if name not in later]
    assert schema_hash(STANDARD, names, 64).startswith("91358bc3bc765107")
    assert hash_of({"a": "mean(c)"}, ["a"], kinds={}, columns={"c": {"type": "number"}}).startswith("a21b8f8af79ae57e")
