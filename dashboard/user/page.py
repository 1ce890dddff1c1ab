"""The page of one user: history, features and scores, computed as in the job, and the explanation of a score."""

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import numpy as np

from dashboard.decoder import RecordDecoder
from dashboard.ingest.topic_reader import TopicReader, open_reader
from dashboard.user.explanation import ExplainedModel, Explanation, explain, load_model
from dashboard.user.lookup import NO_RECORDS, Budget, UserRecords, find_records, partition_of
from dashboard.user.population import fill_clicks
from dashboard.wording import value_text
from training.data.dataset import Dataset, arrange, read_clicks, read_profile_batch
from udfs.contracts.clicks import Click
from udfs.contracts.outputs import Score
from udfs.contracts.packed_events import EVENT
from udfs.features.computer import FeatureComputer
from udfs.features.declaration_file import STANDARD
from udfs.features.expressions import ExpressionError
from udfs.mapping.topic import ClickTopic
from udfs.models.bundle import BundleError, load_bundle
from udfs.models.signatures import PublicKey
from udfs.population.stored_tables import StoredTables
from udfs.rollout.registry import Registry, RegistryError

MAX_RECORDS, MAX_SECONDS = 400_000, 20.0  # of all topics, for one lookup
SHOWN = 64  # events
PROFILE_FEATURES = tuple(feature.name for feature in STANDARD.features if feature.group == "profile")[1:]


class LookupBusy(RuntimeError):
    """Another lookup is in progress."""


@dataclass(frozen=True)
class Event:
    """An accepted click, with its score where there is one."""

    partition: int
    offset: int
    time_ms: int
    name: str
    what: str
    score: Score | None
    was_sent_before: bool = False  # so that it does not count


@dataclass(frozen=True)
class UserPage:
    """The content of a user's page."""

    user_id: str
    events: Sequence[Event] = ()  # newest first
    rejected: int = 0
    seen: int = 0  # accepted events among the records searched that count
    profile: Mapping[str, str] = field(default_factory=dict)
    chosen: Event | None = None
    explanation: Explanation | None = None
    problem: str = ""  # why there is no explanation
    cautions: Sequence[str] = ()  # why recomputed values may differ from the job's
    read: int = 0
    repeated: int = 0  # further accepted events, which do not count because they were sent before


class Users:
    """Looks users up, one at a time."""

    def __init__(
        self,
        properties: Mapping[str, object],
        topics: Mapping[str, str],
        clicks: ClickTopic,
        history_length: int,
        duplicates_within_ms: int,
        registry: Registry | None,
        bundle: Path,
        follow_logins: bool = False,
        population: StoredTables | None = None,
        trusted_keys: Sequence[PublicKey] = (),
    ):
        """`follow_logins`, `duplicates_within_ms` and `trusted_keys` are the score job's settings; `population` has its
        tables."""
        self._properties, self._topics = properties, topics
        self._clicks, self._history_length = clicks, history_length
        self._duplicates_within_ms, self._follow_logins = duplicates_within_ms, follow_logins
        self._registry, self._bundle, self._population = registry, bundle, population
        self._trusted_keys = trusted_keys
        self._lock = threading.Lock()
        self._model = lru_cache(maxsize=4)(self._load_model)

    def find(self, user_id: str, place: tuple[int, int] | None = None) -> UserPage:
        """Look up a user's page; it explains the event at a partition and offset of clicks, else the newest score.

        Raises LookupBusy, KafkaClientError.
        """
        if not self._lock.acquire(blocking=False):
            raise LookupBusy
        try:
            with open_reader(self._properties) as reader:
                records = self._read(reader, user_id.encode())
            return self._page(user_id, *records, place)
        finally:
            self._lock.release()

    def _read(self, reader: TopicReader, key: bytes) -> tuple[UserRecords, UserRecords, UserRecords]:
        """The user's clicks, profiles and scores."""
        budget = Budget(MAX_RECORDS, MAX_SECONDS)
        partitions = reader.partitions(self._topics[role] for role in ("clicks", "profiles", "scores"))
        # All as of now: clicks that come while scores are read have no score among these, and a bot sends many.
        ends = reader.ends(partitions)

        def read(role: str, number: int | None = None, limit: int | None = None) -> UserRecords:
            topic_ends = ends.get(self._topics[role])
            if not topic_ends:
                return NO_RECORDS
            if number not in topic_ends:  # none is known, or it was one of a topic with more partitions
                number = partition_of(key, len(topic_ends))
            return find_records(reader, self._topics[role], number, topic_ends[number], key, budget, limit)

        scores = read("scores", limit=SHOWN)
        # The producer of clicks may choose partitions in another way; scores contain the clicks' partition.
        latest = RecordDecoder(Score).decode([record.value for record in scores.records[-1:]])
        profiles = read("profiles", limit=1)
        return read("clicks", latest[0].source_partition if latest else None), profiles, scores

    def _page(
        self,
        user_id: str,
        clicks: UserRecords,
        profiles: UserRecords,
        scores: UserRecords,
        place: tuple[int, int] | None,
    ) -> UserPage:
        payloads = [record.value for record in clicks.records]
        accepted = read_clicks(payloads, _times_ms(clicks), self._clicks)
        accepted, table_cautions = fill_clicks(accepted, self._clicks.layout, self._population)
        updates = read_profile_batch(
            [record.key for record in profiles.records],
            [record.value for record in profiles.records],
            _times_ms(profiles),
        )
        dataset = arrange(accepted, updates, self._history_length, self._duplicates_within_ms)
        scored = RecordDecoder(Score).decode([record.value for record in scores.records])
        by_place = {(score.source_partition, score.source_offset): score for score in scored}
        rows = {position: row for row, position in enumerate(dataset.positions.tolist())}
        events = {}
        parse = self._clicks.decoder().parse
        for position in reversed(accepted.positions[-SHOWN:].tolist()):
            record = clicks.records[position]
            score = by_place.get((record.partition, record.offset))
            click = parse(record.value)
            events[position] = _event(record.partition, record.offset, click, score, position not in rows)
        newest_first = (payloads[position] for position in reversed(accepted.positions.tolist()))
        position = _choose(events, place)
        chosen = events.get(position)
        explanation, problem = self._explain(dataset, rows.get(position), chosen)
        return UserPage(
            user_id,
            list(events.values()),
            accepted.rejected.total(),
            len(dataset.user),
            _profile(dataset),
            chosen,
            explanation,
            problem,
            [
                *_cautions(clicks, profiles),
                *self._cautions_of_logins(map(parse, newest_first)),
                *(f"{caution[0].upper()}{caution[1:]}." for caution in table_cautions),
            ],
            clicks.read + profiles.read + scores.read,
            len(accepted.positions) - len(dataset.positions),
        )

    def _cautions_of_logins(self, clicks: Iterable[Click]) -> list[str]:
        """That the history of an anonymous visitor is missing here, if one of the accepted clicks is a login."""
        if not self._follow_logins:
            return []
        visitor = next((click.visitor for click in clicks if click.visitor not in (None, click.user_id)), None)
        if visitor is None:
            return []
        return [
            f"This user was the anonymous visitor {visitor} before a login. The job adds the visitor's events to the "
            "user's history (clicks.follow_logins), but this page reads only the user's own events. So features and "
            f"the recomputed score may differ from the job's. To see the visitor's events, look up {visitor}."
        ]

    def _explain(self, dataset: Dataset, row: int | None, event: Event | None) -> tuple[Explanation | None, str]:
        """The explanation, or the reason why there is none."""
        if event is None:
            return None, (
                "No score for the events shown was found in the records searched. The score job may have stopped, may "
                "be behind, or may not have committed the scores yet."
            )
        if row is None:
            return None, "This event was sent before. It changes no feature, and the job does not score it again."
        score = event.score
        if score is None:
            return None, "No score for this event was found in the records searched."
        try:
            return explain(self._model(score.model_version), dataset, row, score), ""
        except (BundleError, ExpressionError, RegistryError, OSError) as error:
            return None, f"Model {score.model_version} cannot be loaded: {error}"

    def _load_model(self, version: str) -> ExplainedModel:
        if self._registry is not None:
            return load_model(self._registry.bundle(version), self._clicks.layout)
        bundle = load_bundle(self._bundle, None, self._trusted_keys)
        if bundle.manifest.version != version:
            raise BundleError(f"{self._bundle} contains version {bundle.manifest.version}")
        return load_model(bundle, self._clicks.layout)


def _times_ms(result: UserRecords) -> np.ndarray:
    return np.array([record.timestamp for record in result.records], np.int64)


def _choose(events: Mapping[int, Event], place: tuple[int, int] | None) -> int | None:
    """The position of the event at a place, else of the newest one that counts and has a score."""
    at_place = (position for position, event in events.items() if (event.partition, event.offset) == place)
    with_score = (
        position for position, event in events.items() if event.score is not None and not event.was_sent_before
    )
    return next(at_place, next(with_score, None))


def _event(partition: int, offset: int, click: Click, score: Score | None, was_sent_before: bool) -> Event:
    parts = [click.item_id, click.item_category, click.page_type, click.page_location, click.creative_slot]
    value = click.value if click.value is not None else click.price
    what = [part for part in parts if part] + ([f"value {value:,.2f}"] if value is not None else [])
    return Event(partition, offset, click.event_time, click.event_name, ", ".join(what), score, was_sent_before)


def _profile(dataset: Dataset) -> dict[str, str]:
    """The profile at the newest event; empty without a profile."""
    if not len(dataset.user) or not dataset.profiles[-1]["known"]:
        return {}
    event = np.zeros(1, EVENT)
    event["time_ms"] = dataset.records["time_ms"][-1]
    ends = np.ones(1, np.int64)
    values = (
        FeatureComputer(PROFILE_FEATURES)
        .compute(event, ends - 1, ends, ends, event["time_ms"].copy(), dataset.profiles[-1:])[0]
        .tolist()
    )
    return {name: value_text(STANDARD, name, value) for name, value in zip(PROFILE_FEATURES, values)}


def _cautions(clicks: UserRecords, profiles: UserRecords) -> list[str]:
    cautions = []
    if clicks.records and not clicks.is_whole:
        back_to = datetime.fromtimestamp((clicks.back_to_ms or 0) / 1000, UTC)
        cautions.append(
            f"Clicks were only read back to {back_to:%Y-%m-%d %H:%M:%S} UTC. Lifetime features count from there, and "
            "the oldest events of the history may be missing."
        )
    if not profiles.records and not profiles.is_whole:
        cautions.append("No profile was found in the records searched.")
    return cautions
