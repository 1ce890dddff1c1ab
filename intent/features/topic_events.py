"""One user's events from the topics, as the dashboard looks them up."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dashboard.decoder import RecordDecoder
from dashboard.ingest.topic_reader import TopicReader, open_reader
from dashboard.user.lookup import UserRecords
from dashboard.user.page import Users
from dashboard.user.population import fill_clicks
from intent.features.errors import NoEventError
from intent.features.user_events import JobRules, UserEvents
from jobs.common.settings import Settings
from training.data.dataset import read_clicks, read_profile_batch
from training.data.summary import in_words
from udfs.contracts.outputs import Score, iso_time


class _Lookup(Users):
    """The dashboard's lookup of a user, with the records themselves as its result."""

    def __init__(self, settings: Settings, rules: JobRules):
        topics = {role: getattr(settings.topics, role) for role in ("clicks", "profiles", "scores")}
        super().__init__(
            settings.kafka,
            topics,
            rules.topic,
            rules.history_length,
            rules.duplicates_within_ms,
            None,
            Path(settings.model.bundle),
            rules.follow_logins,
        )

    def records(self, reader: TopicReader, user_id: str) -> tuple[UserRecords, UserRecords, UserRecords]:
        return self._read(reader, user_id.encode())


def read_topics(user_id: str, settings: Settings, rules: JobRules) -> UserEvents:
    """A user's events, profile and scores. Raises KafkaClientError and, if there is no such user, NoEventError."""
    with open_reader(settings.kafka) as reader:
        found, profiles, scores = _Lookup(settings, rules).records(reader, user_id)
    clicks = read_clicks([record.value for record in found.records], _times_ms(found), rules.topic)
    if user_id not in clicks.user_ids:
        raise NoEventError(_no_event(user_id, settings, found, clicks.rejected))
    clicks, table_cautions = fill_clicks(clicks, rules.topic.layout, rules.population)
    parse = rules.topic.decoder().parse
    own = clicks.positions[clicks.user == clicks.user_ids.index(user_id)].tolist()
    parsed = {position: parse(found.records[position].value) for position in own}
    visitors = [click.visitor for click in parsed.values() if click.visitor not in (None, user_id)]
    cautions = [*_cautions(found, profiles), *table_cautions]
    if rules.follow_logins and visitors:
        cautions.append(
            f"the user was the anonymous visitor {visitors[-1]} before a login, whose events the job adds to the "
            "history (clicks.follow_logins). Only the user's own events are read here, so values may differ"
        )
    return UserEvents(
        clicks,
        read_profile_batch(
            [record.key for record in profiles.records],
            [record.value for record in profiles.records],
            _times_ms(profiles),
        ),
        {position: click.event_name for position, click in parsed.items()},
        {position: {"partition": found.partition, "offset": found.records[position].offset} for position in own},
        RecordDecoder(Score).decode([record.value for record in scores.records]),
        has_newest_profile_only=True,
        cautions=cautions,
    )


def _times_ms(found: UserRecords) -> np.ndarray:
    return np.array([record.timestamp for record in found.records], np.int64)


def _no_event(user_id: str, settings: Settings, found: UserRecords, rejected: Counter) -> str:
    topic, place = settings.topics.clicks, f"partition {found.partition}"
    if found.partition < 0:
        return f"topic {topic}: it does not exist; `intent topics` creates it, or correct topics.clicks"
    if rejected:
        return (
            f"topic {topic}: all {len(found.records)} records of user {user_id} are rejected: {in_words(rejected)}; "
            f"`intent peek dead_letters --user {user_id}` shows why"
        )
    where = place if found.is_whole else f"{place} back to {iso_time(found.back_to_ms or 0)}"
    return (
        f"topic {topic}: no record of user {user_id} among {found.read:,} in {where}; check the id, or read an archive "
        "with --clicks"
    )


def _cautions(clicks: UserRecords, profiles: UserRecords) -> Iterator[str]:
    if not clicks.is_whole:
        yield (
            f"clicks are read back to {iso_time(clicks.back_to_ms or 0)} only. Tiles and features of the lifetime "
            "count from there, and the oldest events of the history may be missing"
        )
    if not profiles.records and not profiles.is_whole:
        yield "no profile was found in the records searched"
