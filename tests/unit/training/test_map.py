"""The command `map`: the proposal on standard output, and what a person has to look at on standard error."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from training.inspection.proposal import Proposal
from training.map import main, text_of
from udfs.mapping.definition import load_mapping, mapping_of

HEADER = "customer;action;at;sku;amount_eur;brand\n"
ROWS = (
    "ada;seen;01.03.2026 10:00;A;12,50;x\n"
    "ada;bought;01.03.2026 10:01;A;12,50;\n"
    "bob;quiz;01.03.2026 10:02;;NULL;y\n"
    "0;seen;01.03.2026 10:03;B;3,00;y\n"
)


@pytest.fixture
def run(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run_map(*arguments: str, content: str | bytes | None = None, name: str = "clicks.csv") -> tuple[int, str, str]:
        if content is not None:
            Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
        code = main([name, *arguments])
        return code, *capsys.readouterr()

    return run_map


def test_the_proposal_can_be_used_as_it_is(run):
    code, out, err = run(content=HEADER + ROWS)
    assert code == 0
    assert out.splitlines() == [
        "# Proposed by `intent map` from the first 4 rows of clicks.csv: check each line.",
        "# conf/mappings/example.yaml explains the keys.",
        "file:",
        "  delimiter: ;",
        "columns:",
        "  user_id: customer",
        "  event_name: action",
        "  event_time: at",
        "  item_id: sku",
        "values:",
        "  event_name:",
        "    seen: view_item",
        "    bought: purchase",
        "ignored_users: ['0']",
        "time_format: '%d.%m.%Y %H:%M'",
        "event_id_prefix: clicks",
        "# Columns that are not used, with a value:",
        "#   amount_eur: '12,50'",
        "#   brand: 'x'",
        "# Events that GA4 has no name for and that count as `other`, with their rows:",
        "#   quiz: 1",
    ]
    assert "3 of 4 rows fit, 1 left out\n" in err
    assert "! ignored_users: rows of '0' are left out" in err
    assert err.endswith(
        "next: write it with --out mapping.yaml and edit it, then `intent check clicks.csv --mapping mapping.yaml`\n"
    )


def test_out_is_a_mapping_file_that_is_not_overwritten(run):
    code, out, err = run("--out", "m.yaml", content=HEADER + ROWS)
    assert (code, out) == (0, "")
    assert err.endswith("next: edit m.yaml, then `intent check clicks.csv --mapping m.yaml`\n")
    assert load_mapping(Path("m.yaml")).for_file("clicks.csv").columns["user_id"] == "customer"
    Path("m.yaml").write_text("mine")
    assert run("--out", "m.yaml") == (2, "", "map: m.yaml exists: pass --force to overwrite it\n")
    assert Path("m.yaml").read_text() == "mine"
    assert run("--out", "m.yaml", "--force")[0] == 0
    assert load_mapping(Path("m.yaml"))


def test_times_in_two_columns_numbers_in_two_formats_and_the_delimiter_of_excel(run):
    rows = "".join(f"u;view;01.03.2026;10:0{n};{n},50 €;1,{n}00.00\n" for n in range(5))
    code, out, err = run("--out", "m.yaml", content=f"sep=;\nuser;event;date;time;price;value\n{rows}".encode("cp1252"))
    assert (code, out) == (0, "")
    assert "5 of 5 rows fit\n" in err
    mapping = yaml.safe_load(Path("m.yaml").read_text())
    assert mapping["file"] == {"encoding": "cp1252"}
    assert (mapping["columns"]["event_time"], mapping["time_of_day"]) == ("date", "time")
    assert mapping["numbers"] == {"thousands": ",", "fields": {"price": {"decimal": ","}}}
    assert load_mapping(Path("m.yaml")).for_file("clicks.csv").numbers.of("price").decimal == ","


def test_a_required_field_that_was_not_found(run):
    code, out, err = run(content="who,action,at\nada,view,2026-03-01\nada,buy,2026-03-02\nbob,buy,2026-03-02\n")
    assert code == 1
    assert "# columns.user_id: not found\n" in out
    assert yaml.safe_load(out)["columns"] == {"event_name": "action", "event_time": "at"}
    assert "! columns.user_id: not found; nearest: who ('ada')\n" in err
    assert "rows fit" not in err


def test_rows_that_do_not_fit_are_counted_by_what_they_have_in_common(run):
    rows = "".join(f"u,view,2026-03-01T10:00:00Z,{price}\n" for price in ["1"] * 20 + ["x", "y", "-1"])
    code, _, err = run(content="user,event,at,price\n" + rows + "u,view\n")
    assert code == 0
    assert "\n20 of 24 rows fit, 4 unfit\n" in err
    assert "\n  row 21: price (column price): 'x' is not a number (and 1 more like it)\n" in err
    assert "\n  row 23: expected at least 0" in err
    assert "\n  row 24: line 25: 2 values for 4 columns\n" in err


def test_no_row_fits(run):
    code, _, err = run(content="user,event,at,price\nu,view,2026-03-01T10:00:00Z,-1\n")
    assert (code, "0 of 1 rows fit" in err) == (1, True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("user,event\n", "map: clicks.csv: no row in it"),
        (None, "map: clicks.csv: no such file"),
    ],
)
def test_files_that_cannot_be_read(run, content: str | None, message: str):
    assert run(content=content) == (2, "", f"{message}\n")


def test_a_mapping_that_cannot_be_written(run):
    code, out, err = run("--out", "missing/m.yaml", content=HEADER + ROWS)
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_bytes_that_are_not_utf8_behind_the_first_megabyte(run):
    rows = b"u,view,2026-03-01T10:00:00Z\n" * 9_000 + b"u," + b"x" * 1_000_000 + b",2026-03-01T10:00:00Z\n"
    code, out, err = run("--out", "m.yaml", content=b"user,event,at\n" + rows + b"u,caf\xe9,2026-03-01T10:00:00Z\n")
    assert (code, out) == (0, "")
    text = Path("m.yaml").read_text(encoding="utf-8")
    assert "#   'caf\\udce9': 1" in text
    assert "row 9,002: event_name (column event): 'caf\\udce9' is not UTF-8" in err
    assert load_mapping(Path("m.yaml"))


TEXTS = st.text(max_size=20) | st.sampled_from(
    ["yes", "1", "=", "<<", "~", "null", "a: b", "# x", "\udce9", "é", "\x85"]
)


@pytest.mark.slow
@given(st.dictionaries(TEXTS, st.sampled_from(["purchase", "search"])), st.lists(TEXTS), TEXTS, TEXTS)
def test_any_proposal_is_yaml_of_the_same_mapping(names: dict, missing: list, column: str, value: str):
    mapping = {
        "columns": {"user_id": column or "u", "event_name": ["b", column or "c"], "event_time": "d"},
        "values": {"event_name": names},
        "missing": missing,
    }
    proposal = Proposal(mapping, {column: value, value: None}, {value: 1}, {"user_id": "x"}, [])
    text = text_of(proposal, Path("a\nb.csv"), 1)
    assert yaml.safe_load(text.encode("utf-8").decode()) == mapping
    assert mapping_of(yaml.safe_load(text), "the proposal")
