"""`intent population`: tables of recorded clicks, from which the job goes on."""

import json

import numpy as np
import pytest

from tests.unit.training.data.test_preparation import archive
from training.population import main
from udfs.features.declaration_file import population
from udfs.population.store import TableStore, check_table
from udfs.population.tables import Counted

HOUR = 3_600_000
BEGIN = 1_767_225_600_000


def click(user: str, name: str, hours: float, category: str) -> dict:
    at = BEGIN + round(hours * HOUR)
    return {"user_id": user, "event_name": name, "event_time": at, "item_category": category, "item_id": "i"}


CLICKS = [
    click("ada", "view_item", 0.5, "shoes"),
    click("ada", "purchase", 2.2, "shoes"),
    click("bob", "view_item", 200.5, "hats"),
    click("bob", "view_item", 210, "hats"),  # its hour is not complete
]


@pytest.fixture
def clicks(tmp_path):
    archive(tmp_path / "clicks" / "part-0.parquet", CLICKS, [one["event_time"] for one in CLICKS])
    return tmp_path / "clicks"


def run(capsys, *arguments) -> tuple[int, str, str]:
    code = main([*map(str, arguments), "--threads", "1"])
    return code, *capsys.readouterr()


def test_the_tables_of_the_last_days_are_written_up_to_the_last_complete_hour(clicks, tmp_path, capsys):
    code, out, _ = run(capsys, "--clicks", clicks, "--out", tmp_path / "tables")
    assert code == 0
    store = TableStore(str(tmp_path / "tables"))
    assert store.boundaries() == [BEGIN + hours * HOUR for hours in (200, 201, 209)]
    newest = store.read(BEGIN + 209 * HOUR)
    check_table(newest, population().layout, "tables")
    expected = 0.5 ** (208 / 720) + 0.5 ** (206 / 720) + 0.5 ** (8 / 720)
    np.testing.assert_allclose(newest.counts[Counted(None, None)].counts.sum(), expected, rtol=1e-5)
    assert out.splitlines()[0] == (
        f"4 of 4 clicks counted; 3 tables in {tmp_path}/tables, the newest of 2026-01-09T17:00:00.000Z"
    )
    assert "by category: 2 values; the most common, as CRC-32 or code:" in out


def test_the_clicks_of_files_are_counted_by_their_own_times(tmp_path, capsys):
    path = tmp_path / "clicks.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in reversed(CLICKS)))
    declaration = tmp_path / "features.yaml"
    declaration.write_text("columns: {views: {type: population, by: item, kind: view_item}}\npopulation: {every: 1d}\n")
    code, out, _ = run(capsys, "--clicks", path, "--declaration", declaration, "--out", tmp_path / "tables")
    assert (code, out.splitlines()[1]) == (0, "by item: 1 value; the most common, as CRC-32 or code:")
    assert TableStore(str(tmp_path / "tables")).boundaries() == [BEGIN + 8 * 24 * HOUR]


@pytest.mark.parametrize(
    ("declaration", "clicks", "there", "expected"),
    [
        ("extends: standard", CLICKS, False, "features.yaml: key columns: none is of type population"),
        ("extends: population", CLICKS, True, "tables: has the table of 2026-01-01T00:00:00.000Z already"),
        ("extends: population", CLICKS[:1], False, "no interval of 60 minutes is complete: use more clicks"),
        ("extends: population", [{}], False, "no click accepted of 1 records"),
        ("extends: me", CLICKS, False, "features.yaml: key extends: "),
    ],
)
def test_what_gives_no_tables_is_refused(tmp_path, capsys, declaration, clicks, there, expected):
    (tmp_path / "features.yaml").write_text(declaration)
    (tmp_path / "clicks.jsonl").write_text("".join(json.dumps(one) + "\n" for one in clicks))
    if there:
        (tmp_path / "tables").mkdir()
        (tmp_path / "tables" / f"{BEGIN:014d}.npz").touch()
    arguments = ["--clicks", tmp_path / "clicks.jsonl", "--declaration", tmp_path / "features.yaml"]
    code, _, err = run(capsys, *arguments, "--out", tmp_path / "tables")
    assert code == 2
    assert expected in err
