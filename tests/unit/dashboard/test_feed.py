"""What the dashboard reads of topics: little of the large ones, all of the small ones."""

import json
import time

import pytest

from dashboard.ingest.feed import DEAD_LETTERS_BEHIND, SAMPLED_RECORDS, Feed
from dashboard.panels.state import SILENT_AFTER_MS, DashboardState
from tests.support.fake_kafka import KeptTopics, Record
from tests.support.sample_records import sample_fields

NOW = time.time_ns() // 1_000_000


def record(number: int, offset: int, value: dict, stamped: int = NOW) -> Record:
    return Record(number, offset, stamped, b"u", json.dumps(value).encode())


def scores(number: int, first: int, count: int) -> list[Record]:
    """Scores of clicks of the same partition and offset, each 40 ms after its click."""
    return [
        record(
            number,
            offset,
            sample_fields("scores", scored_at=NOW + 40, source_partition=number, source_offset=offset),
        )
        for offset in range(first, first + count)
    ]


def clicks(number: int, count: int) -> list[Record]:
    return [record(number, offset, {"large": "and not read"}) for offset in range(count)]


def kpis(number: int, count: int) -> list[Record]:
    return [record(number, at, sample_fields("kpis", window_start=(at * 2 + number) * 60_000)) for at in range(count)]


def letters(count: int, stamped: int = NOW) -> list[Record]:
    return [record(0, at, sample_fields("dead_letters"), stamped) for at in range(count)]


@pytest.fixture
def state() -> DashboardState:
    return DashboardState({role: role for role in SILENT_AFTER_MS}, 1_000)


def look(feed: Feed, reader: KeptTopics, times: int = 1) -> None:
    for _ in range(times):
        feed._look(reader)


@pytest.fixture
def feed(state) -> Feed:
    return Feed({}, {role: role for role in SILENT_AFTER_MS}, state)


def test_of_many_scores_a_few_are_read_and_their_clicks_tell_the_latency(feed, state):
    reader = KeptTopics(clicks={0: clicks(0, 5_000)}, scores={0: []})
    look(feed, reader)
    reader.topics["scores"][0] += scores(0, 0, 5_000)
    before = reader.read_records
    look(feed, reader)
    assert reader.read_records - before <= 2 * SAMPLED_RECORDS
    assert state.latencies.summary(time.time_ns() // 1_000_000)["p50"] == 40
    assert state.mix.acted() == 0
    assert state.flows["scores"].records == 5_000


@pytest.mark.parametrize("field", ["scored_at", "source_offset", "source_partition", "event_time"])
def test_a_number_that_no_job_writes_does_not_end_the_reading(feed, state, field):
    reader = KeptTopics(clicks={0: clicks(0, 9)}, scores={0: []})
    look(feed, reader)
    reader.topics["scores"][0] += [*scores(0, 0, 3), record(0, 3, sample_fields("scores", **{field: 10**400}))]
    look(feed, reader)
    assert state.latencies.summary(time.time_ns() // 1_000_000)["sample"] >= 3


def test_the_small_topics_are_read_whole_from_all_their_partitions(feed, state):
    reader = KeptTopics(kpis={0: kpis(0, 200), 1: kpis(1, 200)})
    look(feed, reader, 3)
    (line,) = state.kpis.lines(1_000)
    assert len(line["times"]) == 400


def test_what_comes_while_a_topic_is_read_is_read_the_next_time(feed, state):
    reader = KeptTopics(kpis={0: kpis(0, 10)})
    look(feed, reader)
    reader.topics["kpis"][0] += kpis(0, 30)[10:]
    look(feed, reader)
    assert len(state.kpis.lines(1_000)[0]["times"]) == 30


def test_a_flood_of_dead_letters_is_counted_and_its_end_is_read(feed, state):
    reader = KeptTopics(dead_letters={0: []})
    look(feed, reader)
    reader.topics["dead_letters"][0] += letters(DEAD_LETTERS_BEHIND + 100)
    look(feed, reader)
    told = state.rejected.summary(NOW)
    assert told["skipped"] + told["reasons"][0]["count"] == DEAD_LETTERS_BEHIND + 100
    assert told["reasons"][0]["count"] == SAMPLED_RECORDS


def test_records_from_before_a_day_ago_are_not_read_but_say_since_when_a_topic_is_silent(feed, state):
    long_ago = NOW - 30 * 3_600_000
    look(feed, KeptTopics(dead_letters={0: letters(10, long_ago)}))
    assert state.rejected.summary(NOW)["reasons"] == []
    assert state.flows["dead_letters"].newest_ms == long_ago


def test_a_topic_that_is_made_anew_is_read_from_its_start(feed, state):
    look(feed, KeptTopics(dead_letters={0: letters(10)}))
    look(feed, KeptTopics(dead_letters={0: letters(3)}))
    assert state.rejected.summary(NOW)["reasons"][0]["count"] == 13


def test_a_topic_that_is_not_there_is_told(feed, state):
    look(feed, KeptTopics())
    assert {flow.state(NOW) for flow in state.flows.values()} == {"missing"}
