"""What a run wrote, compared with what an offline run over the same clicks gives."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pandas as pd
from kafka.consumer.fetcher import ConsumerRecord

from jobs.common.settings import Settings, click_topic
from tools.trials.answers import Position
from tools.trials.sessions import expected_sessions
from training.data.dataset import arrange, read_clicks, read_profiles
from training.simulation.clickstream import Clickstream
from udfs.config.durations import duration_ms
from udfs.contracts.outputs import Outcome
from udfs.features.computer import FeatureComputer
from udfs.measurement.kpis import COUNTED
from udfs.measurement.labels import Label, label_events
from udfs.models.backends import Scorer
from udfs.models.bundle import Bundle

SHOWN = 3
#: What is compared of a session, besides its user and its beginning.
SESSION_COLUMNS = ("arm", "ended_at", "events", "pages", *COUNTED, "revenue", "device")


class Clicks:
    """The records of a topic of clicks, as an offline run sees them."""

    def __init__(
        self, records: Sequence[ConsumerRecord], profiles: Sequence[bytes], settings: Settings, bundle: Bundle
    ):
        """Take Kafka records in the order of their partitions and offsets."""
        self._positions = [(record.partition, record.offset) for record in records]
        payloads = [record.value for record in records]
        topic = click_topic(settings)
        arrival_ms = np.array([record.timestamp for record in records], np.int64)
        decoded = topic.decoder().decode(payloads, arrival_ms.tolist())
        self.dead_letters = {
            position: reason
            for position, reason in zip(self._positions, decoded.reasons)
            if reason not in (None, "ignored")
        }
        clicks = read_clicks(payloads, arrival_ms, topic)
        data = arrange(
            clicks,
            read_profiles(profiles),
            settings.state.history_length,
            duration_ms(settings.clicks.duplicates_within),
        )
        self._data, self._clicks = data, decoded.clicks
        self._computer = FeatureComputer(bundle.manifest.features, settings.state.history_length)
        self._predict = Scorer(bundle).predict

    def __len__(self) -> int:
        return len(self._positions)

    @property
    def scored(self) -> list[Position]:
        """The positions of the clicks that have a score, in the order of the rows."""
        return [self._positions[row] for row in self._data.positions.tolist()]

    def scores(self) -> dict[Position, float]:
        scores = self._predict(self._data.features(self._computer))
        return dict(zip(self.scored, scores.tolist()))

    def labels(self, label: Label, before_ms: int) -> dict[Position, bool]:
        """Whether each click before a time was followed by what the label asks for."""
        positive, _ = label_events(label, self._data.user, self._data.records)
        is_before = self._data.records["time_ms"] < before_ms
        return {
            position: positive
            for position, positive, is_early in zip(self.scored, positive.tolist(), is_before.tolist())
            if is_early
        }

    def sessions(self, before_ms: int) -> dict[tuple[str, int], tuple]:
        """The sessions that begin before a time, by user and beginning."""
        clicks = [self._clicks[row] for row in self._data.positions.tolist()]
        rows = [{name: getattr(click, name) for name in _SESSION_FIELDS} for click in clicks]
        return dict(_keyed(expected_sessions(rows, lambda user: "champion"), before_ms))


_SESSION_FIELDS = ("user_id", "event_name", "event_time", "page_location", "value", "device_category")


def in_order_of_arrival(
    records: Sequence[ConsumerRecord], additions: Sequence[Mapping[int, int]]
) -> list[ConsumerRecord]:
    """Records in the order in which they count, of a topic to which partitions were added.

    Each addition is known by the offsets at the end of all partitions just before it, when all records up to there had
    been scored. A user's later records may be in another partition.
    """

    def key(record: ConsumerRecord) -> tuple[int, int, int]:
        passed = sum(record.offset >= ends.get(record.partition, 0) for ends in additions)
        return passed, record.partition, record.offset

    return sorted(records, key=key)


def newest_profiles(stream: Clickstream) -> list[bytes]:
    """The last profile of each user, valid always: the job has read all of them before the first click."""
    newest = {profile["user_id"]: profile | {"updated_at": 0} for profile in stream.profiles}
    return [msgspec.json.encode(profile) for profile in newest.values()]


def outcomes_before(before_ms: int, records: Sequence[ConsumerRecord]) -> list[tuple[Position, bool]]:
    """The labels in records of outcomes, of clicks before a time."""
    outcomes = [msgspec.json.decode(record.value, type=Outcome) for record in records]
    return [
        ((outcome.source_partition, outcome.source_offset), outcome.label)
        for outcome in outcomes
        if outcome.event_time < before_ms
    ]


def sessions_before(before_ms: int, records: Sequence[ConsumerRecord]) -> list[tuple[tuple[str, int], tuple]]:
    """Records of sessions that begin before a time, as `Clicks.sessions` has them."""
    found = [msgspec.json.decode(record.value) for record in records]
    return _keyed(pd.DataFrame(found), before_ms)


def _keyed(sessions: pd.DataFrame, before_ms: int) -> list[tuple[tuple[str, int], tuple]]:
    if sessions.empty:
        return []
    sessions = sessions[sessions["started_at"] < before_ms]
    return [
        ((row["user_id"], row["started_at"]), tuple(_comparable(row[name]) for name in SESSION_COLUMNS))
        for row in sessions.to_dict("records")
    ]


def differences(what: str, expected: Mapping[Any, Any], found: Sequence[tuple[Any, Any]]) -> list[str]:
    """What is wrong with records found, key and value, of which there should be one for each that is expected.

    >>> differences("scores", {1: 0.5, 2: 0.5}, [(1, 0.5), (1, 0.5)])
    ['scores: 1 of 2 missing, such as 2', 'scores: 1 there more than once, such as 1']
    """
    times, values = Counter(key for key, _ in found), dict(found)
    wrong = {
        f"of {len(expected)} missing": [key for key in expected if key not in times],
        "there more than once": [key for key, count in times.items() if count > 1],
        "that should not be there": [key for key in times if key not in expected],
        "with another value": [key for key in expected if key in times and values[key] != expected[key]],
    }
    return [
        f"{what}: {len(keys)} {words}, such as {', '.join(map(str, keys[:SHOWN]))}"
        for words, keys in wrong.items()
        if keys
    ]


def _comparable(value: Any) -> Any:
    if isinstance(value, float):
        return None if np.isnan(value) else round(value, 2)
    return value
