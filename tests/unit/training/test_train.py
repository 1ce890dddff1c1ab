"""The command: files or a simulated shop in, a bundle with its report out; or one line that says what is wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace

from tests.support.bundles import make_bundle
from tests.unit.training.data.test_preparation import archive
from training.reporting.recommendation import read_recommendation
from training.reporting.recommendation_text import recommendation_text
from training.simulation.clickstream import Simulation, simulate
from training.train import main, summary
from udfs.measurement.labels import CONVERTED
from udfs.models.bundle import load_bundle

pytestmark = pytest.mark.usefixtures("without_plots")

FEATURES = "features=[events_30m,cart_adds_30m,value,event_kind,session_events,country]"
SETTINGS = ("model=xgboost", "repeats=0", "rounds=5", "folds=2", "prune=false", "compare=[]", "threads=1", FEATURES)
QUICK = [part for setting in SETTINGS for part in ("--set", setting)]


@pytest.mark.parametrize("given", [None, "active"])
def test_waiting_threads_leave_the_processor_to_others_unless_told_otherwise(given):
    code = "import os, sys, training; print(os.environ['OMP_WAIT_POLICY'], 'numpy' in sys.modules)"
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": given} if given else {}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == [given or "passive", "False"]  # before any library that reads it


def test_the_summary_has_the_figures_of_new_users_where_they_were_measured():
    figures = {"repeated_roc_auc": 0.7, "repeated_roc_auc_minus_logistic": 0.01}
    intervals = {"repeated_roc_auc_low": 0.6, "repeated_roc_auc_high": 0.8}
    intervals |= {"repeated_roc_auc_minus_logistic_low": -0.01, "repeated_roc_auc_minus_logistic_high": 0.02}
    test = {"rounds": 9, "test_events": 100, "test_positive_rate": 0.1, "test_positive_users": 60, "test_roc_auc": 0.7}
    test |= {"test_roc_auc_low": 0.6, "test_roc_auc_high": 0.8}
    trees = {"version": "v1", "features": ["value"], "files": {"model.ubj": ""}}
    told = summary(SimpleNamespace(metrics=test | figures | intervals, **trees))
    assert (
        "AUC on new users 0.7000 (0.6000 to 0.8000); minus that of logistic +0.0100 (-0.0100 to +0.0200)"
        in told.splitlines()
    )
    assert "new users" not in summary(SimpleNamespace(metrics=test, **trees))


def write_lines(path: Path, records) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_the_command_trains_on_a_simulated_shop_and_writes_a_bundle(tmp_path, capsys):
    assert main(["--simulate", "--users", "400", *QUICK, "--out", str(tmp_path / "models" / "bundle")]) == 0
    bundle = load_bundle(tmp_path / "models" / "bundle", history_length=64)
    assert set(bundle.manifest.files) == {
        "model.ubj", "model.onnx", "report.html", "metrics.json", "features.json", "reference.json", "warm_up.json",
        "model_card.md",
    }  # fmt: skip
    out = capsys.readouterr().out
    assert f"model {bundle.manifest.version}: " in out
    assert ", best possible 0." in out
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["bundle"]


@pytest.mark.slow
def test_the_command_trains_on_files_and_tells_of_rejected_records(tmp_path, capsys):
    stream = simulate(Simulation(users=300, seed=4))
    clicks = write_lines(tmp_path / "clicks.jsonl", [*stream.clicks(), {"user_id": ""}])
    profiles = write_lines(tmp_path / "profiles.jsonl", stream.profiles)
    champion = make_bundle(tmp_path, "champion", label=CONVERTED)
    files = ["--clicks", str(clicks), "--profiles", str(profiles), "--out", str(tmp_path / "bundle")]
    assert main([*files, *QUICK, "--champion", str(champion)]) == 0
    output = capsys.readouterr()
    problem = f"{clicks.name}: 1 clicks rejected by the same rules as in the job: 1 empty_field; for example: "
    assert f"train: {clicks.parent}/{problem}" in output.err
    assert "best possible" not in output.out
    page, card = ((tmp_path / "bundle" / name).read_text() for name in ("report.html", "model_card.md"))
    assert problem in page
    assert "1 clicks rejected by the same rules as in the job" in card
    told = json.loads((tmp_path / "bundle" / "metrics.json").read_text())
    assert len(told["data_warnings"]) == output.err.count("train: ")
    assert str(tmp_path) not in page + card
    assert recommendation_text(read_recommendation(tmp_path / "bundle" / "metrics.json")) in output.out
    assert told["champion"]["version"] == "champion"
    assert len(load_bundle(tmp_path / "bundle", 64).manifest.features) == 6  # the champion's are only compared with


def test_profiles_that_cannot_be_used_are_shown_with_the_reason(tmp_path, capsys):
    clicks = write_lines(tmp_path / "clicks.jsonl", visits(60, buyers=30))
    people = [
        {"user_id": "u1", "country": "GBR"},
        {"user_id": "u2", "country": "(not set)"},
        {"user_id": "u3", "updated_at": 1_772_355_600_000_000},
        {"country": "DE"},
    ]
    profiles = write_lines(tmp_path / "profiles.jsonl", people)
    files = ["--clicks", str(clicks), "--profiles", str(profiles), "--out", str(tmp_path / "bundle")]
    assert main([*files, *QUICK]) == 0
    told = capsys.readouterr().err
    assert f"train: {profiles}: 2 profiles can't be used: 1 out_of_range, 1 missing_field; for example: " in told
    assert "it looks like microseconds" in told
    assert f"train: {profiles}: 1 values of profiles can't be read and count as unknown: 1 country" in told


def archive_file(path: Path, clicks: list[dict], broken: bool = False) -> Path:
    archive(path, clicks, np.array([one["event_time"] for one in clicks]), partitions=1)
    if broken:
        content = bytearray(path.read_bytes())
        content[4:200] = b"\xff" * 196
        path.write_bytes(content)
    return path


def refusal(capsys, *arguments) -> str:
    assert main([str(argument) for argument in arguments]) == 2
    *warned, message = capsys.readouterr().err.splitlines()
    assert all("less than two weeks" in line for line in warned)
    return f"{message}\n"


@pytest.mark.slow
def test_the_command_refuses_an_empty_file_and_leaves_nothing(tmp_path, capsys):
    empty = write_lines(tmp_path / "empty.jsonl", [])
    message = refusal(capsys, "--clicks", empty, "--out", tmp_path / "bundle")
    assert message == f"train: {empty}: no click accepted of 0 records: the data is empty\n"
    assert [path.name for path in tmp_path.iterdir()] == ["empty.jsonl"]


def test_a_champion_that_predicts_something_else_is_refused(tmp_path, capsys):
    champion = make_bundle(tmp_path, "champion", label=replace(CONVERTED, horizon="1 h"))
    message = refusal(capsys, "--simulate", "--champion", champion, "--out", tmp_path / "bundle")
    assert message.startswith(f'train: --champion {champion}: it predicts "')
    assert message.endswith("no metric compares the two\n")


def test_the_command_refuses_a_missing_file(tmp_path, capsys):
    missing = tmp_path / "none.jsonl"
    message = refusal(capsys, "--clicks", missing, "--out", tmp_path / "bundle")
    assert message == f"train: {missing}: no such file or directory\n"


@pytest.mark.parametrize("name", ["profiles", "mapping"])
def test_what_a_simulated_shop_does_not_need_is_refused(tmp_path, capsys, name):
    message = refusal(capsys, "--simulate", f"--{name}", tmp_path / "file", "--out", tmp_path / "bundle")
    assert message == f"train: --{name} can't be combined with --simulate: a simulated shop needs none\n"


def test_the_command_refuses_to_write_over_a_bundle_before_it_trains(tmp_path, capsys):
    message = refusal(capsys, "--simulate", "--out", tmp_path)
    assert (
        message == f"train: {tmp_path}: already exists, and a bundle is never overwritten: choose another directory\n"
    )


START_MS, MINUTE_MS = 1_577_836_800_000, 60_000


def click(user: int, minute: int, name: str = "page_view", **more) -> dict:
    return {"user_id": f"u{user}", "event_name": name, "event_time": START_MS + minute * MINUTE_MS, **more}


def visits(users: int, buyers: int, hours: int = 2) -> list[dict]:
    """Each user views a page every quarter of an hour; the first users buy in the second one."""
    views = [click(user, minute) for minute in range(0, 60 * hours, 15) for user in range(users)]
    return [*views, *(click(user, 20, "purchase") for user in range(buyers))]


@pytest.mark.parametrize(
    ("clicks", "options", "message"),
    [
        (
            visits(40, buyers=0),
            [],
            "no purchase among 320 accepted events, so no example is positive (purchase by the same user within 30 min",
        ),
        (visits(40, buyers=1), [], "part has 0 positive labels among"),
        (visits(3, buyers=2), ["--set", "folds=3"], "are too few for"),
        (
            visits(40, buyers=20),
            ["--label", "purchase within 3 h"],
            "the clicks span 105 minutes, and a label is",
        ),
    ],
)
def test_data_that_no_model_can_be_trained_on_is_refused_in_one_line(tmp_path, capsys, clicks, options, message):
    path = write_lines(tmp_path / "clicks.jsonl", sorted(clicks, key=lambda one: one["event_time"]))
    assert message in refusal(capsys, "--clicks", path, *QUICK, *options, "--out", tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["clicks.jsonl"]


def test_a_purchase_in_this_session_is_a_label_for_rows_of_rees46(tmp_path):
    # Users buy after two views of their first session, or after the one view of their second session.
    minutes = [(0, 10, 20, 80, 200), (0, 10, 80, 90, 200)]
    header = "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session"
    names = {20: "purchase", 90: "purchase"}
    rows = sorted(
        f"2019-10-01 {at // 60:02}:{at % 60:02}:00 UTC,{names.get(at, 'view')},7,9,,,5,{user},x"
        for user in range(120)
        for at in minutes[user % 2]
    )
    path = tmp_path / "rees46.csv"
    path.write_text("\n".join([header, *rows]))
    files = ["--clicks", str(path), "--mapping", "conf/mappings/rees46.yaml", "--out", str(tmp_path / "bundle")]
    assert main([*files, "--label", "bought_in_session", *QUICK, "--set", "model=logistic"]) == 0
    manifest = load_bundle(tmp_path / "bundle", 64).manifest
    assert manifest.label.session_gap == "30 min"
    assert 1 / 3 <= manifest.metrics["test_positive_rate"] < 2 / 3  # without the gap, a third would not be negative


def test_data_without_any_information_gives_a_model_that_is_not_to_be_shipped(tmp_path, capsys):
    path = write_lines(tmp_path / "clicks.jsonl", visits(60, buyers=30))
    useless = ["--set", "features=[country, value]"]
    assert main(["--clicks", str(path), *QUICK, *useless, "--out", str(tmp_path / "bundle")]) == 0
    told = capsys.readouterr().out
    assert "features with one value or none in this data: " in told
    assert "Do not ship this model. It can't be told from chance: its AUC (" in told
    assert ") is not clearly above 0.5. Try more data or another label." in told


def test_duplicates_and_clocks_that_are_off_are_told_in_a_line_each(tmp_path, capsys):
    clicks = sorted(visits(60, buyers=30), key=lambda one: one["event_time"])
    path = write_lines(tmp_path / "clicks.jsonl", [click(0, 60 * 49), *clicks, clicks[-1]])
    assert main(["--clicks", str(path), *QUICK, "--out", str(tmp_path / "bundle")]) == 0
    told = capsys.readouterr().err
    assert f"{path}: 1 events are identical to another event of the same user (" in told
    assert "they are kept, because no id says that they are the same" in told
    assert f"{path}: 9 events of 1 users have event times more than 30 min before an earlier event of the same" in told
    assert "same user, by up to 2.0 days" in told
    assert "Without arrival times, events are taken in the order of their event times" in told
    assert "no event at all from" in told
    assert "less than two weeks" in told
    assert told.count("\n") == 4


@pytest.mark.slow
def test_users_who_look_like_bots_are_left_out_and_told_unless_the_settings_keep_them(tmp_path, capsys):
    crawled = [click(99, 0) | {"event_time": START_MS + at} for at in range(0, 15_000, 100)]
    path = write_lines(tmp_path / "clicks.jsonl", visits(60, buyers=30) + crawled)
    for number, (options, rows) in enumerate([([], 360), (["--set", "bots=null"], 510)]):
        assert main(["--clicks", str(path), *QUICK, *options, "--out", str(tmp_path / str(number))]) == 0
        output = capsys.readouterr()
        assert f"; {rows} examples for training and testing" in output.out
        line = (
            f"train: {path}: 150 events of 1 user who look like bots are left out (1 user with 100 events less than "
            "200 ms apart on average); bots: null in the training settings keeps them\n"
        )
        assert (line in output.err) == (not options)


def test_unfit_rows_and_names_without_a_meaning_are_shown(tmp_path, capsys):
    rows = visits(60, buyers=30) + [{"user_id": "x", "event_name": "bought", "event_time": 1, "price": "1,299.00"}]
    rows += [{"user_id": "x", "event_name": "Order Completed", "event_time": rows[0]["event_time"], "price": "1"}] * 3
    path = write_lines(tmp_path / "clicks.jsonl", rows)
    mapping = tmp_path / "m.yaml"
    fields = ", ".join(f"{name}: {name}" for name in ("user_id", "event_name", "event_time", "price"))
    mapping.write_text(f"columns: {{{fields}}}\ntime_format: epoch_ms\n")
    assert main(["--clicks", str(path), "--mapping", str(mapping), *QUICK, "--out", str(tmp_path / "bundle")]) == 0
    output = capsys.readouterr()
    assert f"train: {path}: 1 of {len(rows)} rows do not fit the mapping and give no clicks" in output.err
    assert f"{path}, row {len(rows) - 3}: event_time (column event_time): 1 is before 2000" in output.err
    assert "3 events have names that count as `other`: 3 Order Completed (probably purchase)" in output.err
    assert "; 3 other" in output.out


def parquet(path: Path, clicks: list[dict], broken: bool = False) -> Path:
    """A file of plain columns; broken in a page of data, while the footer is whole."""
    pq.write_table(pa.Table.from_pylist(clicks), path, compression="none", use_dictionary=False)
    if broken:
        content = bytearray(path.read_bytes())
        content[4:200] = b"\xff" * 196
        path.write_bytes(content)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(("make", "processes"), [(parquet, 1), (archive_file, 2)], ids=["plain", "archive"])
def test_a_parquet_file_that_breaks_off_is_refused_by_name(tmp_path, capsys, make, processes):
    path = make(tmp_path / "clicks.parquet", visits(20, buyers=5), broken=True)
    options = [*QUICK, "--set", f"threads={processes}"]
    message = refusal(capsys, "--clicks", path, *options, "--out", tmp_path / "bundle")
    assert message.startswith(f"train: {path}: cannot be read further: ")
    assert [path.name for path in tmp_path.iterdir()] == ["clicks.parquet"]


@pytest.mark.parametrize("make", [parquet, archive_file], ids=["plain", "archive"])
def test_an_empty_parquet_file_is_refused_alone_and_no_matter_beside_others(tmp_path, capsys, make):
    clicks = visits(60, buyers=30)
    for day, found in (("day=1", clicks[:0]), ("day=2", clicks), ("day=3", clicks[:0])):
        (tmp_path / "data" / day).mkdir(parents=True)
        make(tmp_path / "data" / day / "part.parquet", clicks)
        table = pq.read_table(tmp_path / "data" / day / "part.parquet")
        pq.write_table(table.slice(0, len(found)), tmp_path / "data" / day / "part.parquet")
    empty = tmp_path / "data" / "day=1"
    message = refusal(capsys, "--clicks", empty, *QUICK, "--out", tmp_path / "bundle")
    assert message == f"train: {empty}: no click accepted of 0 records: the data is empty\n"
    assert main(["--clicks", str(tmp_path / "data"), *QUICK, "--out", str(tmp_path / "bundle")]) == 0
    assert f"{len(clicks)} of {len(clicks)} clicks accepted" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--users", 0, "users must be at least 1 (got 0)"),
        ("--set", "rounds=0", "settings: Expected `int` >= 1 - at `$.rounds`"),
        ("--label", "nothing", "label 'nothing': not in labels.yaml"),
        ("--version", "a b", "version must be 1 to 64 letters, digits, dots, underscores or hyphens (got 'a b')"),
        ("--conf", "none.yaml", "none.yaml: cannot be read"),
    ],
)
def test_the_command_refuses_a_setting_out_of_range(tmp_path, capsys, option, value, message):
    assert message in refusal(capsys, "--simulate", "--users", 50, option, value, "--out", tmp_path / "bundle")
