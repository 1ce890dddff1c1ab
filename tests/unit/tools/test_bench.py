"""The benchmark's command: which parts run, what the report keeps of the others, and what the table shows."""

import subprocess
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.bench import __main__ as bench
from tools.bench.__main__ import PARTS, main, measured, part_rows, parts_of, table
from tools.bench.rates import BenchError
from tools.bench.report import Measured, ReportError, commit_of, read_report, write_report

OLD = Measured(date=datetime(2026, 1, 2, 3, 4, tzinfo=UTC), commit="abc1234", cores=2, figures={"events": 1})

FIGURES = {
    "throughput": {
        "features": 103,
        "trees": 197,
        "bare_loop": 80_000,
        "job": {"heap": {"1": 40_000}, "rocksdb": {"1": 20_000, "2": 60_000}},
        "state_bytes_per_user": 1_421,
        "record_bytes": {"clicks": 231.0, "scores": 267.0},
        "swap": {"before": {"batches": 10, "slow": 0}, "during": {"batches": 20, "slow": 1}},
    },
    "latency": {
        "at-least-once": {
            "first_minute": {"events": 9, "p50": 50.0, "p99": 1_234.5},
            "at": {"500": {"events": 9, "p50": 5.0, "p99": 9.0}, "10000": {"events": 9, "p50": 6.0, "p99": 8.0}},
        },
        "exactly-once": {
            "first_minute": {"events": 9, "p50": 600.0, "p99": 1_900.0},
            "at": {"2000": {"events": 9, "p50": 500.0, "p99": 1_000.0}},
        },
    },
    "inference": {
        "us_per_row": {"1": {"native": 400.0, "onnx": 30.0}},
        "native_from": 1_024,
        "shadows": {"64": {"one": 1.5, "two": 1.7}},
        "swap": {"rows": 1_000, "longest_during_ms": 14.7, "longest_before_ms": 9.5},
    },
    "preparation": {
        "events": 10_000_000,
        "seconds": 82.9,
        "events_per_s": 120_000,
        "peak_mib": 910,
        "pandas_events_per_s": 60_000,
    },
    "measuring": {"beside": 5_000, "watch_drift": 75_523},
    "dashboard": {
        "without": {"p50": 127.0, "p99": 641.0},
        "with": {"p50": 107.0, "p99": 672.0},
        "without_again": {"p50": 97.0, "p99": 366.0},
        "dashboard_cores": 0.05,
        "dashboard_mib": [209, 219],
        "answers": {"pages": 590, "failed": 1, "p50": 7.5, "p99": 184.0, "longest": 200.0},
    },
    "peers": {
        "versions": {"quixstreams": "3.28.1", "bytewax": "0.21.1"},
        "bare_loop": 80_000,
        "plain": {"1": 16_000},
        "quix": {"1": 4_000, "2": 8_000},
        "bytewax": {"1": 10_000},
        "job": {"1": 40_000},
    },
    "scale": {
        str(users): {
            "events_per_s": rate,
            "mib": {"all": 3_000, "java": 2_000, "python3.11": 1_000},
            "state_bytes_per_user": 200,
            "added_mib": 12,
            "took_s": 1.5,
        }
        for users, rate in ((20_000, 50_000), (2_000_000, 40_000))
    },
}


@given(st.lists(st.sampled_from([*PARTS]), min_size=1), st.booleans())
def test_parts_run_once_each_and_in_their_order(names, spaced):
    assert parts_of((", " if spaced else ",").join(names)) == [name for name in PARTS if name in names]


@pytest.mark.parametrize("text", ["speed", "latency,speed", "", ",", "Latency"])
def test_an_unknown_part_is_told_with_those_that_there_are(text, capsys):
    assert main(["--part", text]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert all(name in error for name in PARTS)


def test_a_report_keeps_the_figures_of_the_parts_that_did_not_run(tmp_path, monkeypatch):
    file = tmp_path / "bench.json"
    write_report(file, {"latency": OLD, "scale": OLD})
    report = read_report(file)
    monkeypatch.setattr(PARTS["scale"], "measure", lambda context: {"events": 2})
    before = datetime.now(UTC)
    assert measured("scale", None, report, file)
    kept = read_report(file)
    assert kept["latency"] == OLD
    assert kept["scale"].figures == {"events": 2}
    assert timedelta(seconds=-1) <= kept["scale"].date - before < timedelta(minutes=1)
    plain = msgspec.json.decode(file.read_bytes())
    assert plain["latency"]["date"] == "2026-01-02T03:04:00Z"
    assert plain["latency"]["commit"] == "abc1234"
    assert [*tmp_path.iterdir()] == [file]


def test_a_part_that_fails_keeps_its_last_figures_and_the_next_one_runs(tmp_path, monkeypatch, capsys):
    def fails(context):
        raise BenchError("too slow")

    monkeypatch.setattr(bench, "REPORT", file := tmp_path / "bench.json")
    monkeypatch.setattr(bench, "PROJECT", tmp_path)
    monkeypatch.setattr("tools.bench.context.PROJECT", tmp_path)
    (tmp_path / "build").mkdir()
    write_report(file, {"latency": OLD})
    monkeypatch.setattr(PARTS["latency"], "measure", fails)
    monkeypatch.setattr(PARTS["inference"], "measure", lambda context: FIGURES["inference"])
    assert main(["--part", "latency,inference"]) == 1
    assert "latency: too slow" in capsys.readouterr().err
    report = read_report(file)
    assert report["latency"] == OLD
    assert report["inference"].figures == FIGURES["inference"]
    assert len([*(tmp_path / "build").iterdir()]) == 1, "what it wrote is kept, to look into"
    assert main(["--part", "inference"]) == 0
    assert len([*(tmp_path / "build").iterdir()]) == 1, "and deleted when all is well"


@pytest.mark.parametrize(
    "content", ['{"cores": 2, "bare_loop": 70000}', "nonsense", '{"scale": {"figures": {}}}', "[]"]
)
def test_a_report_of_another_release_is_told(tmp_path, content):
    file = tmp_path / "bench.json"
    file.write_text(content)
    with pytest.raises(ReportError, match="cannot be read by this release"):
        read_report(file)


def test_where_there_is_no_report_nothing_was_measured(tmp_path):
    assert read_report(tmp_path / "bench.json") == {}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_has_rows_for_its_figures(name):
    measured = msgspec.structs.replace(OLD, figures=msgspec.json.decode(msgspec.json.encode(FIGURES[name])))
    head, *found = part_rows(name, measured)
    assert name in head[0]
    assert head[1] == "2026-01-02 03:04 UTC, commit abc1234, 2 cores"
    assert found == PARTS[name].rows(FIGURES[name])
    assert all(isinstance(text, str) and text for row in found for text in row)
    assert "release" not in found[0][0]


@pytest.mark.parametrize("name", PARTS)
def test_a_part_without_figures_or_with_those_of_another_release_says_how_to_measure_it(name):
    assert part_rows(name, None)[0][1] == f"not measured yet: make bench PART={name}"
    for figures in ({"events": 1}, {"job": 3}, {"1": [2]}):
        assert part_rows(name, msgspec.structs.replace(OLD, figures=figures))[-1] == (
            "figures of another release",
            f"cannot be shown; measure again: make bench PART={name}",
        )


def test_the_table_shows_every_part():
    shown = table({"latency": OLD})
    names = [str(cell) for cell in shown.columns[0].cells]
    assert [name for name in PARTS if f"[bold]{name}[/bold]" in names] == [*PARTS]


def test_ratios_are_to_the_bare_loop_of_the_same_run():
    assert ("state on rocksdb, parallelism 2", "60,000 events/s, 0.75 of the bare loop") in PARTS["throughput"].rows(
        FIGURES["throughput"]
    )
    assert ("Quix Streams 3.28.1, 2 processes", "8,000 events/s, 0.10 of the bare loop") in PARTS["peers"].rows(
        FIGURES["peers"]
    )
    assert PARTS["scale"].rows(FIGURES["scale"])[-1][1] == "0.80 of the rate with 20,000"


def test_a_commit_with_changes_beside_it_is_marked(tmp_path):
    assert commit_of(tmp_path) == "unknown"

    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-m", "first")
    commit = commit_of(tmp_path)
    assert commit.isalnum()
    (tmp_path / "file").write_text("2")
    assert commit_of(tmp_path) == f"{commit}+"
