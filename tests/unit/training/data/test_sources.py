"""Files become Kafka records: those of clicks as they are, foreign rows by a mapping."""

import gzip
import json
import os
import re
from pathlib import Path
from zlib import crc32

import pytest

from training.data.intake import Intake
from training.data.sources import DAY_MS, WEEK_MS, Record, click_records, file_records, profile_records, weeks_to_shift
from training.simulation.clickstream import Simulation, simulate
from udfs.contracts.clicks import ClickDecoder, read_click
from udfs.contracts.profiles import ProfileDecoder
from udfs.mapping.definition import MappingError, MappingFile, load_mapping, mapping_of

ROOT = Path(__file__).parents[4]
DATA = ROOT.parent / "shared" / "data"
FIELD = ROOT.parent / "shared" / "field"
AT = 1_772_355_600_000  # 2026-03-01 09:00 UTC
MAPPING = {
    "columns": {"user_id": "who", "event_name": "what", "event_time": "at"},
    "time_format": "epoch_ms",
    "event_id_prefix": "t",
}


def records_of(path: Path, content: bytes | str | None = None, intake: Intake | None = None, **keys) -> list[Record]:
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with path.open("rb") as file:
        return list(file_records(file, intake=intake, **keys))


def adapted(path: Path, content: bytes | str, shift_ms: int = 0, **changes) -> tuple[list[Record], Intake]:
    intake = Intake()
    mappings = MappingFile("m.yaml", (("*", mapping_of(MAPPING | changes, "m.yaml")),))
    return records_of(path, content, intake, mappings=mappings, shift_ms=shift_ms), intake


def without_file(value: bytes) -> bytes:
    """A record whose event id by row number does not depend on where the file is."""
    return re.sub(rb'-[0-9a-f]{8}(?=-\d{6}")', b"", value)


def rejections(records: list[Record]) -> list[tuple[str, str]]:
    decoded = ClickDecoder().decode([value for _, value, _ in records], [AT] * len(records))
    return [(reason, message) for reason, message in zip(decoded.reasons, decoded.messages) if reason]


@pytest.mark.parametrize("compressed", [False, True])
def test_json_lines_are_sent_byte_for_byte_even_when_broken(tmp_path, compressed):
    lines = [
        f'{{"user_id": "a",  "event_time": {AT}, "price": 1.50}}'.encode(),
        f'{{"user_id": 7,  "event_name": "scroll", "event_time": {AT}.0}}'.encode(),
        b'{"user_id": "a", "event_ti',
        b'{"user_id": "\xff", "event_time": 6}',
        b"[" * 5000,
        b'{"event_time": 1e999}',
        b'{"user_id": "", "event_time": -1}',
    ]
    path = tmp_path / ("c.jsonl.gz" if compressed else "c.jsonl")
    (gzip.open if compressed else open)(path, "wb").write(b"\n".join(lines) + b"\n\n")
    records = records_of(path)
    assert [value for _, value, _ in records] == lines
    assert [(key, time_ms) for key, _, time_ms in records] == [(b"a", AT), (b"7", AT)] + [(None, None)] * 5


def test_a_shifted_line_of_json_keeps_the_bytes_of_its_other_fields(tmp_path):
    content = f'{{"price": 1.50, "event_time": {AT}, "x": {{"y":  1e2}}, "user_id": "a"}}\nbroken\n'
    assert records_of(tmp_path / "c.jsonl", content, shift_ms=WEEK_MS) == [
        (b"a", f'{{"price":1.50,"event_time":{AT + WEEK_MS},"x":{{"y":  1e2}},"user_id":"a"}}'.encode(), AT + WEEK_MS),
        (None, b"broken", None),
    ]


@pytest.mark.parametrize("time_ms", [0, AT // 1000, AT * 1000, 4_000_000_000_000])
def test_a_line_with_an_absurd_time_is_not_shifted_and_has_no_kafka_timestamp(tmp_path, time_ms):
    line = f'{{"user_id": "a", "event_time": {time_ms}}}'
    assert records_of(tmp_path / "c.jsonl", line, shift_ms=WEEK_MS) == [(b"a", line.encode(), None)]


def test_rows_become_clicks_by_a_mapping(tmp_path):
    records, intake = adapted(tmp_path / "c.csv", f"who,what,at\n1,scroll,{AT}\n2,ä,{AT + 1}\n", shift_ms=100)
    assert [(key, time_ms) for key, _, time_ms in records] == [(b"1", AT + 100), (b"2", AT + 101)]
    assert [json.loads(without_file(value)) for _, value, _ in records] == [
        {"user_id": "1", "event_name": "scroll", "event_time": AT + 100, "event_id": "t-000001"},
        {"user_id": "2", "event_name": "ä", "event_time": AT + 101, "event_id": "t-000002"},
    ]
    assert (intake.rows, intake.mapped, intake.problems()) == (2, 2, [])


def test_event_ids_by_row_number_differ_between_files_and_stay_when_a_file_is_read_again(tmp_path):
    names = ["a.csv", "b.csv", "day=1/a.csv", "day=2/a.csv"]
    ids = []
    for name in names * 2:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        records, _ = adapted(tmp_path / name, f"who,what,at\na,scroll,{AT}\na,scroll,{AT}\n")
        ids += [json.loads(value)["event_id"] for _, value, _ in records]
    assert len(set(ids)) == 2 * len(names)
    assert ids[: 2 * len(names)] == ids[2 * len(names) :]


def test_a_line_that_only_a_lenient_reader_accepts_is_shifted_too(tmp_path):
    line = f'{{"user_id": "a", "event_name": "scroll", "event_time": {AT}, "discount": NaN}}'
    ((key, value, time_ms),) = records_of(tmp_path / "c.jsonl", line, shift_ms=WEEK_MS)
    assert (key, time_ms) == (b"a", AT + WEEK_MS)
    assert read_click(value).event_time == AT + WEEK_MS
    assert b'"discount": NaN' in value


def test_events_of_a_list_have_event_ids_of_their_own(tmp_path):
    session = {"who": "a", "events": [{"what": "scroll", "at": AT}, {"what": "scroll", "at": AT}]}
    records, _ = adapted(tmp_path / "c.jsonl", f"{json.dumps(session)}\n" * 2, file={"explode": "events"})
    ids = [json.loads(value)["event_id"] for _, value, _ in records]
    assert [event_id[-7:] for event_id in ids] == ["-000001", "-000002", "-000003", "-000004"]


def test_an_unfit_row_is_counted_shown_and_a_dead_letter_with_its_reason(tmp_path):
    path = tmp_path / "c.csv"
    records, intake = adapted(path, f"who,what,at\na,scroll,{AT}\nb,scroll,noon\nc,scroll\nd,scroll,{AT}\n")
    assert [key for key, _, _ in records] == [b"a", None, None, b"d"]
    assert json.loads(without_file(records[3][1]))["event_id"] == "t-000004"
    assert rejections(records) == [
        ("unfit_row", "event_time (column at): 'noon' is not a number"),
        ("unfit_row", "line 4: 2 values for 3 columns"),
    ]
    assert intake.problems() == [
        "2 of 4 rows do not fit the mapping and give no clicks, for example",
        f"  {path}, row 2: event_time (column at): 'noon' is not a number",
        f"  {path}, row 3: line 4: 2 values for 3 columns",
    ]


def test_an_unfit_row_is_never_a_click_even_if_it_is_in_the_contract(tmp_path):
    row = {"user_id": "u", "event_name": "bought", "event_time": AT, "unit_price": "1,299.00"}
    columns = {"user_id": "user_id", "event_name": "event_name", "event_time": "event_time", "price": "unit_price"}
    records, intake = adapted(tmp_path / "c.jsonl", json.dumps(row), columns=columns)
    assert intake.unfit == 1
    assert [reason for reason, _ in rejections(records)] == ["unfit_row"]
    assert b"1,299.00" in records[0][1]


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ('"gr\\udcfcn"', "color (column color): 'gr\\udcfcn' is not UTF-8; if it is a file's, set file.encoding"),
        ('{"de": "gr\\ud800n"}', "color (column color): {'de': 'gr\\ud800n'} has a text that is not UTF-8"),
    ],
)
def test_a_kept_value_that_a_record_can_not_hold_spoils_its_own_row_only(tmp_path, kept, message):
    lines = (
        f'{{"who": "{who}", "what": "scroll", "at": {AT}, "color": {color}}}\n'
        for who, color in (("a", kept), ("b", 1))
    )
    records, _ = adapted(tmp_path / "c.jsonl", "".join(lines), keep={"color": "color"})
    assert [key for key, _, _ in records] == [None, b"b"]
    ((_, told),) = rejections(records)
    assert told.startswith(message)


def test_bytes_that_are_not_utf8_spoil_their_own_row_only(tmp_path):
    content = f"who,what,at\nX,scroll,{AT}\nb,scroll,{AT}\n".encode().replace(b"X", b"\xff")
    records, intake = adapted(tmp_path / "c.csv", content)
    assert [key for key, _, _ in records] == [None, b"b"]
    ((reason, message),) = rejections(records)
    assert reason == "unfit_row"
    assert message.startswith("user_id (column who): '\\udcff' is not UTF-8")


def test_columns_that_no_row_has_are_named(tmp_path):
    columns = MAPPING["columns"] | {"item_id": "skuu", "value": "revenu"}
    _, intake = adapted(tmp_path / "c.jsonl", json.dumps({"who": "a", "what": "scroll", "at": AT}), columns=columns)
    assert intake.problems() == ["columns skuu, revenu were in no row"]


def test_rows_that_the_mapping_ignores_are_counted_and_not_sent(tmp_path):
    content = f"who,what,at\nundefined,scroll,{AT}\na,scroll,{AT}\n"
    records, intake = adapted(tmp_path / "c.csv", content, ignored_users=["undefined"])
    assert [key for key, _, _ in records] == [b"a"]
    assert intake.problems() == ["1 row left out as the mapping says (who 'undefined': 1)"]


def test_a_mapped_column_that_the_file_does_not_have_is_refused(tmp_path):
    with pytest.raises(MappingError, match=r"m\.yaml: key columns\.event_time: no column at in .*c\.csv"):
        adapted(tmp_path / "c.csv", "who,what\n")


def test_counts_of_files_add_up(tmp_path):
    total = Intake()
    for name, column in (("a.jsonl", "skuu"), ("b.jsonl", "item")):
        columns = MAPPING["columns"] | {"item_id": ["skuu", "item"]}
        row = {"who": "a", "what": "scroll", "at": AT, column: "x"}
        total += adapted(tmp_path / name, f"{json.dumps(row)}\nbroken\n", columns=columns)[1]
    assert (total.rows, total.unfit, len(total.examples)) == (4, 2, 2)
    assert "in no row" not in "".join(total.problems())  # each column was in one of the files


def test_simulated_clicks_and_profiles_keep_the_contracts():
    stream = simulate(Simulation(users=20, hours=6, seed=3))
    clicks = list(click_records(stream.clicks(), shift_ms=WEEK_MS))
    decoded = ClickDecoder().decode([value for _, value, _ in clicks], [time_ms for _, _, time_ms in clicks])
    assert [user.encode() for user in decoded.user_ids] == [key for key, _, _ in clicks]
    assert clicks[0][2] == int(stream.events["time_ms"][0]) + WEEK_MS
    keys, values, _ = zip(*profile_records(stream.profiles))
    assert [user.encode() for user in ProfileDecoder().decode(keys, values).user_ids] == list(keys)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "mapping", "rows"),
    [
        ("taobao_dev_events.csv.gz", "taobao.yaml", 84_252),
        ("rees46_2019-10-01_00-03h.csv.gz", "rees46.yaml", 17_434),
    ],
)
def test_every_row_of_the_recorded_shops_is_accepted(name, mapping, rows):
    if not (DATA / name).exists():
        pytest.skip(f"no {name} beside the repository")
    intake = Intake()
    _, values, times = zip(
        *records_of(DATA / name, intake=intake, mappings=load_mapping(ROOT / "conf" / "mappings" / mapping))
    )
    decoded = ClickDecoder().decode(values, times)
    assert [message for message in decoded.messages if message] == []
    assert intake.rows == len(decoded.events) == rows
    assert len(set(decoded.event_ids)) == rows


def test_a_shift_ends_in_the_week_before_now(tmp_path):
    shift_ms = weeks_to_shift(AT, AT + 10 * WEEK_MS + DAY_MS)
    records, _ = adapted(tmp_path / "c.csv", f"who,what,at\na,scroll,{AT}\n", shift_ms=shift_ms)
    assert records[0][2] == AT + 10 * WEEK_MS


def test_an_unfit_row_of_any_size_is_rejected_for_its_reason(tmp_path):
    records, _ = adapted(tmp_path / "c.csv", f"who,what,at\na,{'x' * 100_000},noon\n")
    assert rejections(records) == [("unfit_row", "event_time (column at): 'noon' is not a number")]
    assert len(records[0][1]) < 20_000


def test_what_was_read_of_a_file_is_counted_even_if_the_rest_is_not(tmp_path):
    path, intake = tmp_path / "c.csv", Intake()
    path.write_text(f"who,what,at\na,scroll,{AT}\nb,scroll,{AT}\n")
    columns = MAPPING["columns"] | {"price": "cost"}
    mappings = MappingFile("m.yaml", (("*", mapping_of(MAPPING | {"columns": columns}, "m.yaml")),))
    with path.open("rb") as file:
        records = file_records(file, mappings, intake=intake)
        next(records)
        records.close()
    assert intake.problems() == ["column cost was in no row"]


def test_a_file_whose_name_is_not_utf_8_has_ids_of_its_own(tmp_path):
    names = [os.fsdecode(name) for name in (b"b\xf6rse.csv", b"b\xf4rse.csv", "b\u00f6rse.csv".encode())]
    ids = [
        json.loads(adapted(tmp_path / name, f"who,what,at\na,view_item,{AT}\n")[0][0][1])["event_id"] for name in names
    ]
    assert len(set(ids)) == len(names)
    assert all(re.fullmatch(r"t-[0-9a-f]{8}-000001", one) for one in ids)
    assert f"{crc32(os.fsencode(tmp_path / names[2])):08x}" in ids[2]


def test_an_unfit_row_of_a_file_whose_name_is_not_utf_8_can_be_printed(tmp_path):
    _, intake = adapted(tmp_path / os.fsdecode(b"b\xf6rse.csv"), "who,what,at\na,view_item,noon\n")
    assert "rse.csv, row 1: " in intake.examples[0]
    assert intake.examples[0].encode()
