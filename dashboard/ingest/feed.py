"""The thread that keeps the state up to date: it reads the topics once per second, whatever their traffic.

Rates come from end offsets, without reading a record. Scores and outcomes are sampled from the topics' ends. The small
topics are read record by record, dead letters as long as they are few.
"""

import logging
import random
import threading
import time
from collections import defaultdict
from collections.abc import Mapping

from dashboard.ingest.topic_reader import Offsets, TopicReader, open_reader
from dashboard.panels.state import FOLLOWED, SAMPLED, DashboardState
from udfs.config.durations import now_ms
from udfs.contracts.outputs import Score
from udfs.kafka.errors import KafkaClientError

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
TOPICS_SECONDS = 15.0
LOOK_BACK_MS = 24 * 3_600_000
SAMPLED_PARTITIONS = 8  # of a topic in one look
SAMPLED_RECORDS = 50  # of a partition in one look
FOLLOWED_RECORDS = 5_000  # of a topic in one look
DEAD_LETTERS_BEHIND = 2_000  # when more than these are unread, the newest are read and the others counted
READ_SECONDS = 0.5  # of a topic in one look
CLICK_STRETCH = 1_000  # offsets between the first and the last click that latencies are looked up for


class Feed(threading.Thread):
    """Reads topics until `stop`. It retries an unreachable broker, and keeps the state meanwhile."""

    def __init__(self, properties: Mapping[str, object], topics: Mapping[str, str], state: DashboardState):
        """Take client properties, the names of topics by role, and the state to update."""
        super().__init__(name="feed", daemon=True)
        self._properties, self._topics, self._state = properties, topics, state
        self._stopping = threading.Event()
        self._partitions: dict[str, list[int]] = {}  # by role
        self._topics_at = float("-inf")
        self._after: dict[str, Offsets] = {}  # by role: the next offsets to read

    def stop(self) -> None:
        self._stopping.set()
        self.join()

    def run(self) -> None:
        while not self._stopping.is_set():
            try:
                with open_reader(self._properties) as reader:
                    self._watch(reader)
            except KafkaClientError as error:
                log.warning("%s", error)
                self._state.broker_lost(now_ms(), f"Cause: {error}")
                self._stopping.wait(LOOK_SECONDS)
            except Exception as error:  # a defect: the pages must show it rather than stop changing
                self._state.broker_lost(now_ms(), f"The dashboard stopped reading: {error!r}")
                raise

    def _watch(self, reader: TopicReader) -> None:
        self._topics_at = float("-inf")
        while not self._stopping.is_set():
            began = time.monotonic()
            self._look(reader)
            self._state.broker_answers()
            self._stopping.wait(max(0.0, began + LOOK_SECONDS - time.monotonic()))

    def _look(self, reader: TopicReader) -> None:
        if time.monotonic() - self._topics_at > TOPICS_SECONDS:
            known = reader.partitions(self._topics.values())
            self._partitions = {role: known[topic] for role, topic in self._topics.items() if topic in known}
            self._topics_at = time.monotonic()
        topic_ends = reader.ends({self._topics[role]: numbers for role, numbers in self._partitions.items()})
        ends = {role: topic_ends[self._topics[role]] for role in self._partitions}
        self._state.observe(now_ms(), {role: ends.get(role) for role in self._topics})
        for role in ends:
            if role not in self._after:
                self._begin_topic(reader, role, ends[role])
            if role in FOLLOWED:
                self._follow(reader, role, ends[role])
            elif role in SAMPLED:
                self._sample(reader, role, ends)

    def _begin_topic(self, reader: TopicReader, role: str, ends: Offsets) -> None:
        """Begin to read a topic: note the time of its newest record; start a day ago if it is followed, else now."""
        topic = self._topics[role]
        starts = reader.starts(topic, ends)
        tail = {number: max(starts[number], end - 5) for number, end in ends.items()}
        newest = [record.timestamp for record in reader.read(topic, tail, ends, 5 * len(ends), READ_SECONDS).records]
        if newest:
            with self._state.lock:
                self._state.flows[role].last_record_at(max(newest))
        since = reader.offsets_since(topic, ends, now_ms() - LOOK_BACK_MS) if role in FOLLOWED else ends
        self._after[role] = {number: max(starts[number], since[number]) for number in ends}

    def _follow(self, reader: TopicReader, role: str, ends: Offsets) -> None:
        starts = self._starts(role, ends)
        behind = sum(end - starts[number] for number, end in ends.items())
        if role == "dead_letters" and behind > DEAD_LETTERS_BEHIND:
            newest = {number: max(starts[number], end - SAMPLED_RECORDS) for number, end in ends.items()}
            with self._state.lock:
                self._state.rejected.skipped += sum(newest[number] - starts[number] for number in ends)
            starts = newest
        stretch = reader.read(self._topics[role], starts, ends, FOLLOWED_RECORDS, READ_SECONDS)
        self._after[role] = stretch.after
        records = stretch.records
        if records:
            times_ms = [record.timestamp for record in records]
            self._state.take(role, now_ms(), [record.value for record in records], times_ms)

    def _sample(self, reader: TopicReader, role: str, ends: Mapping[str, Offsets]) -> None:
        starts = self._starts(role, ends[role])
        moved = [number for number, end in ends[role].items() if end > starts[number]]
        chosen = random.sample(moved, min(SAMPLED_PARTITIONS, len(moved)))
        tail = {number: max(starts[number], ends[role][number] - SAMPLED_RECORDS) for number in chosen}
        limit = SAMPLED_RECORDS * len(tail)
        records = reader.read(self._topics[role], tail, ends[role], limit, READ_SECONDS).records
        self._after[role] = dict(ends[role])
        scores = self._state.take(role, now_ms(), [record.value for record in records])
        if role == "scores" and "clicks" in ends:
            latencies = self._latencies(reader, scores, ends["clicks"])
            with self._state.lock:
                self._state.latencies.add(now_ms(), latencies)

    def _latencies(self, reader: TopicReader, scores: list[Score], ends: Offsets) -> list[float]:
        """Latencies in ms from the Kafka timestamps of the clicks, which are looked up, to the scores."""
        by_partition: dict[int, dict[int, int]] = defaultdict(dict)  # offsets, and when they were scored
        for score in scores:
            if abs(score.scored_at) < 1 << 63:  # no job writes another, of which there may be no float
                by_partition[score.source_partition][score.source_offset] = score.scored_at
        starts, stops = {}, {}
        for number, offsets in by_partition.items():
            if number in ends:
                stops[number] = min(ends[number], max(offsets) + 1)
                starts[number] = max(min(offsets), stops[number] - CLICK_STRETCH)
        limit = CLICK_STRETCH * max(1, len(starts))
        clicks = reader.read(self._topics["clicks"], starts, stops, limit, READ_SECONDS).records
        scored_at = ((by_partition[click.partition].get(click.offset), click.timestamp) for click in clicks)
        return [float(at - stamped) for at, stamped in scored_at if at is not None]

    def _starts(self, role: str, ends: Offsets) -> Offsets:
        """The offsets to continue from; a recreated topic is read from its start."""
        after = self._after[role]
        return {number: after[number] if after.get(number, end + 1) <= end else 0 for number, end in ends.items()}
