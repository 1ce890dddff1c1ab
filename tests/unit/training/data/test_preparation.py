"""Examples made on disk, bucket by bucket, against the same made in memory; and data that is not as it should be."""

import json
import math
import pickle
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.own_features import declared
from training.data.archive import Arrived, find_parts, newest_arrival_ms, read_part
from training.data.examples import load_examples, save_examples
from training.data.preparation import EVENT_ROWS, UPDATE_ROWS, Preparation, PrepareError, build_bucket, prepare
from training.data.sources import SourceError
from training.data.split import user_folds
from training.simulation.clickstream import Simulation, simulate
from training.simulation.examples import simulated_examples
from udfs.contracts.packed_events import EVENT
from udfs.features.declaration_file import to_json
from udfs.measurement.bots import Bots
from udfs.measurement.labels import CONVERTED

QUICK = Preparation(CONVERTED, workers=1, bucket_events=1_000)


@pytest.fixture(scope="module")
def stream():
    return simulate(Simulation(users=150, hours=12, seed=8, late_share=0.1))


def archive(path, clicks: list[dict], arrival_ms, partitions: int = 3) -> None:
    """Clicks as the job's archive has them, a partition after the other."""
    payloads = [json.dumps(click).encode() for click in clicks]
    partition = np.array([sum(click["user_id"].encode()) % partitions for click in clicks])
    offset = np.empty(len(clicks), np.int64)
    for number in range(partitions):
        offset[partition == number] = np.arange((partition == number).sum())
    order = np.argsort(partition, kind="stable")
    times = [datetime.fromtimestamp(int(arrival_ms[row]) / 1000, UTC) for row in order]
    table = pa.table(
        {
            "payload": [payloads[row] for row in order],
            "record_time": pa.array(times, pa.timestamp("ms", tz="UTC")),
            "source_partition": pa.array(partition[order], pa.int32()),
            "source_offset": pa.array(offset[order], pa.int64()),
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=500)


def by_time(examples):
    """Features and labels in an order that does not depend on how they were made."""
    order = np.lexsort((examples.user_ids[examples.user], examples.time_ms))
    return examples.features[order], examples.labels[order]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_an_archive_in_any_order_gives_the_examples_that_memory_gives(tmp_path, stream, workers):
    archive(tmp_path / "clicks" / "day=2026-01-05" / "part-0.parquet", list(stream.clicks()), stream.arrival_ms)
    (tmp_path / "clicks" / "_SUCCESS").touch()
    profiles = tmp_path / "profiles.jsonl"
    profiles.write_text("".join(json.dumps(profile) + "\n" for profile in stream.profiles))
    directories, summary = prepare(tmp_path / "clicks", tmp_path / "out", replace(QUICK, workers=workers), profiles)
    assert len(directories) > 1
    assert summary.read == summary.accepted == len(stream)
    features, labels = by_time(load_examples(directories))
    expected, expected_labels = by_time(simulated_examples(stream))
    assert labels.tolist() == expected_labels.tolist()
    assert features.tobytes() == expected.tobytes()


def test_what_processes_are_sent_of_own_features_arrives_unchanged(tmp_path):
    preparation = replace(QUICK, declaration=declared(tmp_path))
    arrived = pickle.loads(pickle.dumps(preparation))
    assert to_json(arrived.declaration) == to_json(preparation.declaration)
    assert replace(arrived, declaration=preparation.declaration) == preparation


@pytest.mark.parametrize("are_archived", [True, False])
def test_what_arrived_in_a_time_gives_the_examples_of_that_time_with_their_whole_history(
    tmp_path, stream, are_archived
):
    archive(tmp_path / "clicks" / "part-0.parquet", list(stream.clicks()), stream.arrival_ms, partitions=1)
    first, end = (int(np.quantile(stream.arrival_ms, share)) for share in (0.5, 0.8))
    profiles = tmp_path / "profiles" / "part-0.parquet"
    archive(profiles, stream.profiles, [profile["updated_at"] for profile in stream.profiles], partitions=1)
    if not are_archived:
        profiles = tmp_path / "profiles.jsonl"
        profiles.write_text("".join(f"{json.dumps(profile)}\n" for profile in stream.profiles))
    frozen = replace(QUICK, arrived=Arrived(0, end), rows_from_ms=first)
    examples = load_examples(prepare(tmp_path / "clicks", tmp_path / "out", frozen, profiles)[0])
    everything = simulated_examples(stream)
    matured = everything.time_ms + CONVERTED.horizon_ms <= end
    wanted = matured & (everything.time_ms >= first) & (stream.arrival_ms[everything.offset] <= end)
    assert 0 < wanted.sum() < len(everything) / 2
    assert by_time(examples)[0].tobytes() == by_time(everything.take(np.flatnonzero(wanted)))[0].tobytes()


def test_an_event_is_an_example_from_its_first_moment_to_that_of_the_last_matured_label():
    events = packed(*(("a", minute, minute) for minute in (9, 10, 70, 71, 100)))
    frozen = replace(QUICK, rows_from_ms=10 * 60_000)
    examples, _ = build_bucket(events, NO_UPDATES, frozen, 100 * 60_000)
    assert (examples.time_ms / 60_000).tolist() == [10, 70]
    assert examples.starts.tolist() == [0, 0]


def test_the_newest_arrival_is_told_by_the_footers_of_the_newest_day(tmp_path, stream):
    clicks = list(stream.clicks())[:300]
    for day, rows in (("day=2026-01-09", slice(0, 100)), ("day=2026-01-10", slice(100, 200))):
        archive(tmp_path / day / "part-0.parquet", clicks[rows], stream.arrival_ms[rows])
    assert newest_arrival_ms(tmp_path) == stream.arrival_ms[100:200].max()
    table = pq.read_table(tmp_path / "day=2026-01-10" / "part-0.parquet")
    for name, options in (("a", {"write_statistics": False}), ("b", {"use_deprecated_int96_timestamps": True})):
        (tmp_path / name / "day=2026-01-10").mkdir(parents=True)
        pq.write_table(table, tmp_path / name / "day=2026-01-10" / "part-0", **options)
        assert newest_arrival_ms(tmp_path / name) == stream.arrival_ms[100:200].max()
    empty = tmp_path / "empty.parquet"
    pq.write_table(table.slice(0, 0), empty)
    with pytest.raises(SourceError, match="no record in it"):
        newest_arrival_ms(empty)


def test_when_files_arrived_that_are_no_archive_is_not_known(tmp_path):
    (tmp_path / "clicks.jsonl").write_text("{}")
    frozen = replace(QUICK, arrived=Arrived(0, 1))
    for read in (newest_arrival_ms, lambda path: prepare(path, tmp_path / "out", frozen)):
        with pytest.raises(SourceError, match="not an archive: when its records arrived is not known"):
            read(tmp_path)


def test_row_groups_outside_of_the_time_are_not_read(tmp_path, stream):
    clicks, times = list(stream.clicks())[:2_000], stream.arrival_ms[:2_000]
    archive(tmp_path / "part-0.parquet", clicks, times, partitions=1)
    (part,) = find_parts(tmp_path, arrived=Arrived(int(times[600]), int(times[900])))
    assert part.row_groups == (1,)
    read = np.concatenate([batch.arrival_ms for batch in read_part(part)])
    assert read.tolist() == times[(times >= times[600]) & (times <= times[900])].tolist()


def packed(*events: tuple[str, int, int]) -> pa.Table:
    """A bucket of (user, minute, offset) events, in one partition."""
    records = np.zeros(len(events), EVENT)
    records["time_ms"] = [minute * 60_000 for _, minute, _ in events]
    columns = {
        "user_id": [user for user, _, _ in events],
        "packed": [record.tobytes() for record in records],
        "arrival_ms": [0] * len(events),
        "partition": [0] * len(events),
        "offset": [offset for _, _, offset in events],
    }
    return pa.table(columns, EVENT_ROWS)


NO_UPDATES = UPDATE_ROWS.empty_table()


def test_what_comes_later_changes_no_feature_of_an_event():
    early = [("a", 0, 1), ("a", 1, 2), ("b", 1, 3)]
    later = [("a", 5, 10), ("b", 2, 11), ("a", 40, 12)]
    update = pa.table({"user_id": ["a"], "packed": [bytes(16)], "arrival_ms": [10]}, UPDATE_ROWS)
    end = 10**9
    alone, _ = build_bucket(packed(*early), NO_UPDATES, QUICK, end)
    followed, _ = build_bucket(packed(*later, *early), update, QUICK, end)
    kept = np.isin(followed.offset, [1, 2, 3])
    assert followed.features[kept].tobytes() == alone.features.tobytes()


def test_a_record_that_was_read_twice_counts_once_and_a_copy_is_told():
    examples, summary = build_bucket(packed(("a", 0, 1), ("a", 0, 1), ("a", 0, 2)), NO_UPDATES, QUICK, 10**9)
    assert (len(examples), summary.duplicates, summary.copies) == (2, 1, 1)


FEW = Bots(events_per_hour=4, paced_events=3, min_gap="2 min")


def test_the_events_of_bots_are_no_rows_and_change_no_row_of_others():
    people = [("ada", minute, minute) for minute in (0, 10, 30, 60)] + [("bob", 5, 100)]
    hourly = [("crawler", minute, 200 + minute) for minute in (59, 0, 20, 40)]
    paced = [("scraper", minute, 300 + minute) for minute in (2, 1, 0, 500)]
    everybody = packed(*hourly, *people, *paced)
    examples, summary = build_bucket(everybody, NO_UPDATES, replace(QUICK, bots=FEW), 10**9)
    expected, _ = build_bucket(packed(*people), NO_UPDATES, QUICK, 10**9)
    assert examples.offset.tolist() == expected.offset.tolist()
    assert examples.features.tobytes() == expected.features.tobytes()
    assert examples.labels.tolist() == expected.labels.tolist()
    assert (summary.examples, summary.bot_users, summary.bot_events) == (len(people), 2, 8)
    assert sorted(summary.bots.values()) == [1, 1]
    kept, unflagged = build_bucket(everybody, NO_UPDATES, QUICK, 10**9)
    assert (len(kept), unflagged.bot_events) == (len(people) + 8, 0)


def test_what_was_read_twice_makes_nobody_a_bot():
    twice = packed(*[("ada", minute, minute) for minute in (0, 10, 20)] * 2)
    assert build_bucket(twice, NO_UPDATES, replace(QUICK, bots=FEW), 10**9)[1].bot_users == 0


def test_data_of_bots_alone_is_an_error_that_says_so(tmp_path):
    lines = [json.dumps({"user_id": "a", "event_name": "scroll", "event_time": 10**12 + at}) for at in range(150)]
    (tmp_path / "clicks.jsonl").write_text("\n".join(lines))
    wanted = (
        "no event to train on: 150 events of 1 user who look like bots are left out "
        r"\(1 user with 100 events less than 200 ms apart on average\); bots: null in the training settings"
    )
    with pytest.raises(PrepareError, match=wanted):
        prepare(tmp_path / "clicks.jsonl", tmp_path / "out", replace(QUICK, bots=Bots()))


def test_left_out_negatives_are_weighed_by_those_that_stay(tmp_path):
    events = packed(*((f"u{number}", 0, number) for number in range(4_000)))
    save_examples(build_bucket(events, NO_UPDATES, QUICK, 10**9)[0], tmp_path / "0")
    examples = load_examples([tmp_path / "0"], negative_share=0.25)
    assert 800 < len(examples) < 1_200
    assert math.isclose(examples.weight.sum(), 4 * len(examples))


def test_clicks_that_are_all_rejected_are_an_error_with_the_reasons(tmp_path):
    (tmp_path / "clicks.jsonl").write_text('{"user_id": ""}\n[]\n')
    with pytest.raises(PrepareError, match="no click accepted of 2 records: 1 empty_field, 1 not_an_object"):
        prepare(tmp_path / "clicks.jsonl", tmp_path / "out", QUICK)


def test_a_horizon_longer_than_the_data_is_an_error(tmp_path):
    click = {"user_id": "a", "event_name": "scroll"}
    lines = [json.dumps(click | {"event_time": 10**12 + minute * 60_000}) for minute in (0, 20)]
    (tmp_path / "clicks.jsonl").write_text("\n".join(lines))
    with pytest.raises(PrepareError, match="the clicks span 20 minutes, and a label is known only 30 min after"):
        prepare(tmp_path / "clicks.jsonl", tmp_path / "out", QUICK)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.parquet", b"PAR1 broken", "x.parquet: not a Parquet file"),
        ("x.txt", b"", "x.txt: unknown format"),
        (".hidden", b"", "no file in it"),
    ],
)
def test_a_directory_that_cannot_be_read_is_refused_by_name(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=message):
        find_parts(tmp_path)


def test_an_empty_partition_of_an_archive_is_no_error(tmp_path, stream):
    clicks = list(stream.clicks())
    archive(tmp_path / "a" / "1.parquet", clicks, stream.arrival_ms)
    pq.write_table(pq.read_table(tmp_path / "a" / "1.parquet").slice(0, 0), tmp_path / "a" / "2.parquet")
    _, summary = prepare(tmp_path / "a", tmp_path / "out", QUICK)
    assert summary.accepted == len(clicks)


def test_the_rows_of_a_file_in_any_order_give_the_same_examples(tmp_path, stream):
    clicks, tables, folds = list(stream.clicks())[:2_000], [], []
    orders = (clicks, clicks[::-1], sorted(clicks, key=lambda click: click["event_name"]))
    for number, rows in enumerate(orders):
        path = tmp_path / f"{number}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        examples = load_examples(prepare(path, tmp_path / str(number), Preparation(CONVERTED, workers=1))[0])
        keys = list(zip(examples.user_ids[examples.user].tolist(), examples.time_ms.tolist()))
        tables.append(dict(zip(keys, np.column_stack([examples.features, examples.labels]).tolist())))
        fold = user_folds(examples, np.arange(len(examples)), folds=3, seed=1)
        folds.append(dict(zip(examples.user_ids[examples.user].tolist(), fold.tolist())))
    distinct = {
        key for key, count in Counter((one["user_id"], one["event_time"]) for one in clicks).items() if count == 1
    }
    ordered, *others = ({key: str(row) for key, row in table.items() if key in distinct} for table in tables)
    assert len(ordered) > 500
    assert others == [ordered, ordered]
    assert folds[1:] == [folds[0], folds[0]]
