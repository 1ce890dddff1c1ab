"""Slopes, percentiles and the report of a soak, from series whose behaviour is known."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from tools.soak.__main__ import main
from tools.soak.report import markdown, slopes_of, write_plots
from tools.soak.series import Checkpoint, Row, binned, p99_by_block, percentile
from tools.soak.slopes import LEAST_BLOCKS, block_means, slope
from tools.trials.sampling import JvmReading, Reading

QUARTER = 0.25


def autocorrelated(rng: np.random.Generator, count: int, memory: float = 0.9) -> np.ndarray:
    """AR(1) noise: each value is mostly the one before it."""
    values, shocks = np.zeros(count), rng.normal(size=count)
    for at in range(1, count):
        values[at] = memory * values[at - 1] + shocks[at]
    return values


def test_noise_that_remembers_is_flat_as_often_as_the_interval_says():
    rng, hours = np.random.default_rng(4), np.arange(480) / 240  # two hours, a sample every 15 s
    verdicts = [slope(*block_means(hours, autocorrelated(rng, 480), QUARTER)).verdict for _ in range(200)]
    assert verdicts.count("flat") / 200 > 0.9


@examples(20)
@given(st.floats(-500, 500).filter(lambda per_hour: abs(per_hour) > 5), st.integers(0, 99))
def test_a_slope_well_above_the_noise_is_found(per_hour, seed):
    rng, hours = np.random.default_rng(seed), np.arange(480) / 240
    found = slope(*block_means(hours, 1_000 + per_hour * hours + 0.1 * autocorrelated(rng, 480), QUARTER))
    assert found.verdict == ("grows" if per_hour > 0 else "falls")
    assert found.per_hour == pytest.approx(per_hour, abs=3)


def test_a_series_that_never_changes_is_flat():
    found = slope(np.arange(8.0), np.full(8, 123.0))
    assert (found.low, found.high, found.verdict) == (0, 0, "flat")


def test_too_few_blocks_are_no_data():
    assert slope(np.arange(LEAST_BLOCKS - 1.0), np.arange(LEAST_BLOCKS - 1.0)) is None


def test_means_are_of_full_blocks_and_leave_out_what_is_missing():
    hours = np.array([0.0, 0.1, 0.3, 0.4, 0.6])
    middles, means = block_means(hours, np.array([1.0, 3.0, np.nan, 5.0, 100.0]), QUARTER)
    assert middles.tolist() == [0.125, 0.375]
    assert means.tolist() == [2.0, 5.0]


@given(st.lists(st.floats(1, 600_000), min_size=1, max_size=200), st.sampled_from([0.5, 0.99]))
def test_percentiles_of_bins_are_those_of_the_values_to_two_percent(latencies, share):
    half = len(latencies) // 2
    some = [binned(np.array(part)) for part in (latencies[:half], latencies[half:])]
    exact = np.percentile(latencies, 100 * share, method="inverted_cdf")
    assert percentile(some, share) == pytest.approx(exact, rel=0.02)


def rows(count: int, growth: int = 0) -> list[Row]:
    """A row each minute; a worker that grows by so many MiB per hour, a broker and figures of a JVM gone at times."""
    made = []
    for minute in range(count):
        worker = Reading((100 << 20) + minute * (growth << 20) // 60, 5, 20 + minute % 2)
        processes = {"worker": worker} | ({"broker": Reading(1 << 30, 80, 300)} if minute % 10 else {})
        checkpoint = Checkpoint(50 << 20, 1 << 20, 30) if minute > 5 else None
        jvms = {"jobmanager": JvmReading(128 << 20, 64 << 20, 16 << 20)} if minute % 7 else {}
        made.append(Row(1_800_000_000 + 60 * minute, processes, checkpoint, 3, {150: 990, 300: 10}, jvms))
    return made


def test_what_grows_is_named_and_the_rest_is_flat():
    slopes = slopes_of(rows(121, growth=60), QUARTER, QUARTER)
    unit, found = slopes["worker, rss"]
    assert (unit, found.verdict, found.per_hour) == ("MiB", "grows", pytest.approx(60))
    others = {name: found.verdict for name, (_, found) in slopes.items() if name != "worker, rss"}
    assert set(others.values()) == {"flat"}
    assert {"p99 latency", "broker, handles", "jobmanager, metaspace", "checkpoint, state", "lag"} <= others.keys()


def test_a_short_run_has_a_report_without_verdicts(tmp_path):
    short = rows(20)
    text = markdown(short, {"hot swaps": "2", "interrupted": "yes"}, QUARTER, QUARTER)
    assert "- hot swaps: 2\n" in text
    assert "| p99 latency | | | | no data |" in text
    assert "| 0 | 15,000 | 19 ms | 19 ms | 3 | 50.0 MiB | 1.0 MiB |" in text
    write_plots(tmp_path, short)
    assert {file.stem for file in tmp_path.iterdir()} == {"rss", "heap", "threads", "handles", "p99", "state"}


def test_p99_is_that_of_all_scores_of_a_block():
    middles, p99 = p99_by_block(rows(46), QUARTER)
    assert middles.tolist() == [0.125, 0.375, 0.625]
    assert p99 == pytest.approx([1.02**150] * 3)


def test_the_report_of_an_earlier_run_can_be_written_again(tmp_path, capsys):
    assert main(["--report", str(tmp_path)]) == 1
    assert "no rows" in capsys.readouterr().err
    (tmp_path / "rows.jsonl").write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows(91, growth=6)))
    assert main(["--report", str(tmp_path)]) == 0
    assert "| worker, rss | " in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize("arguments", [["--hours", "0"], ["--rate", "-1"], ["--block-minutes", "0"]])
def test_arguments_that_make_no_soak_are_refused(arguments, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert "must be above 0" in capsys.readouterr().err
