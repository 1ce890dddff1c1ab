"""The command: files or a simulated shop in, a bundle with its report out; or one line that says what is wrong."""

import json
from pathlib import Path

import pytest

from training.simulate import Simulation, simulate
from training.train import main
from udfs.model import load_bundle

QUICK = ["--set", "rounds=5", "--set", "folds=2", "--set", "prune=false", "--set", "compare=[]", "--set", "threads=1"]


def write_lines(path: Path, records) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_the_command_trains_on_a_simulated_shop_and_writes_a_bundle(tmp_path, capsys):
    assert main(["--simulate", "--users", "1000", *QUICK, "--out", str(tmp_path / "models" / "bundle")]) == 0
    bundle = load_bundle(tmp_path / "models" / "bundle", history_length=64)
    assert {"model.ubj", "model.onnx", "report.html", "metrics.json", "reference.json", "warm_up.json"} == set(
        bundle.manifest.files
    )
    out = capsys.readouterr().out
    assert f"model {bundle.manifest.version}: " in out
    assert ", best possible 0." in out
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["bundle"]


def test_the_command_trains_on_files_and_tells_of_rejected_records(tmp_path, capsys):
    stream = simulate(Simulation(users=1_000, seed=4))
    clicks = write_lines(tmp_path / "clicks.jsonl", [*stream.clicks(), {"user_id": ""}])
    profiles = write_lines(tmp_path / "profiles.jsonl", stream.profiles)
    files = ["--clicks", str(clicks), "--profiles", str(profiles), "--out", str(tmp_path / "bundle")]
    assert main([*files, *QUICK]) == 0
    output = capsys.readouterr()
    assert f"train: {clicks}: 1 clicks rejected, as the job would: 1 empty_field\n" in output.err
    assert "best possible" not in output.out


def refusal(capsys, *arguments) -> str:
    assert main([str(argument) for argument in arguments]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    return message


def test_the_command_refuses_an_empty_file_and_leaves_nothing(tmp_path, capsys):
    empty = write_lines(tmp_path / "empty.jsonl", [])
    message = refusal(capsys, "--clicks", empty, "--out", tmp_path / "bundle")
    assert message == f"train: {empty}: no click accepted of 0 records: there are none\n"
    assert [path.name for path in tmp_path.iterdir()] == ["empty.jsonl"]


def test_the_command_refuses_a_missing_file(tmp_path, capsys):
    missing = tmp_path / "none.jsonl"
    message = refusal(capsys, "--clicks", missing, "--out", tmp_path / "bundle")
    assert message == f"train: {missing}: no such file or directory\n"


def test_the_command_refuses_to_write_over_a_bundle_before_it_trains(tmp_path, capsys):
    message = refusal(capsys, "--simulate", "--out", tmp_path)
    assert message == f"train: {tmp_path}: exists already, a bundle is never written over: name another directory\n"


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--users", 0, "users is 0: want at least 1"),
        ("--set", "rounds=0", "settings: Expected `int` >= 1 - at `$.rounds`"),
        ("--label", "nothing", "label 'nothing': not in labels.yaml"),
        ("--version", "a b", "version is 'a b'"),
        ("--conf", "none.yaml", "none.yaml: cannot be read"),
    ],
)
def test_the_command_refuses_a_setting_out_of_range(tmp_path, capsys, option, value, message):
    assert message in refusal(capsys, "--simulate", "--users", 50, option, value, "--out", tmp_path / "bundle")
