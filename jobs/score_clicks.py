"""The main job: clicks and profiles in, a score for every accepted click out.

    flink run -pym jobs.score_clicks -pyfs dist/*.whl --conf conf/local.yaml

clicks ── decode ─┬─ rejected ──────────────────────────▶ dead_letters
                  ├─ with an anonymous id ─▶ follow logins ─┐  (clicks.follow_logins)
                  └─ accepted ──────────────────────────────┤
profiles ── decode ─────────────────────────────────────────┴─ by user ─▶ score ──▶ scores, feature_log, shadow_scores

Each box is a Java operator with a Python worker, which gets batches of records in shared memory (docs/workers.md).
"""

import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from jobs.common.population import find_population, newest_table_of
from jobs.common.serving import find_serving
from jobs.common.settings import ConfigError, Settings, click_topic, has_foreign_clicks, load_settings
from jobs.common.streams import SlotKind, Stream, Streams
from jobs.common.submission import flink_options, parse_arguments
from jobs.common.tables import consumer_properties, producer_properties, transactional_prefix
from jobs.common.topics import check_topics
from udfs.config.durations import duration_ms
from udfs.contracts.event_layout import EventLayout
from udfs.features.user_slots import earlier_layouts, head_type, layout_id, new_head, ring_bytes
from udfs.kafka.errors import KafkaClientError
from udfs.models.bundle import BundleError
from udfs.population.store import PopulationError
from udfs.rollout.registry import RegistryError
from udfs.serving.bootstrap import Serving
from udfs.workers.decode import ClickHandler, ProfileHandler
from udfs.workers.logins import FollowLogins
from udfs.workers.score import ScoreClicks

DEAD_LETTERS, SCORES, MAPPED_CLICKS, ANONYMOUS_CLICKS = "dead_letters", "scores", "mapped_clicks", "anonymous_clicks"


def user_slot(settings: Settings, layout: EventLayout) -> SlotKind:
    """What workers keep of a user, with events of a layout."""
    earlier = earlier_layouts(layout) if settings.state.new_columns == "empty" else []
    return SlotKind(
        new_head(layout),
        ring_bytes(settings.state.history_length, layout.dtype),
        layout.empty_record,
        [_earlier(each) for each in earlier],
        duration_ms(settings.state.ttl),
    )


def _earlier(layout: EventLayout) -> tuple[int, int, int, int]:
    signed_id = np.uint32(layout_id(layout)).astype(np.int32).item()
    return signed_id, head_type(layout).itemsize, layout.dtype.itemsize, layout.used_bytes


def score_clicks(
    streams: Streams, clicks: Stream, profiles: Stream, settings: Settings, serving: Serving
) -> dict[str, Stream]:
    """Build the job over raw records of clicks and profiles; returns the streams to write, by the topics' roles.

    `feature_log` is present if a share of the users is logged, `shadow_scores` if there is a registry, and
    `mapped_clicks` if the clicks topic is not in the contract.
    """
    topics, decode, follow_logins = settings.topics, settings.decode, settings.clicks.follow_logins
    topic = click_topic(settings)
    layout, history_length = topic.layout, settings.state.history_length
    slot = user_slot(settings, layout)
    duplicates_within_ms = duration_ms(settings.clicks.duplicates_within)
    decoded_clicks = streams.batch(
        clicks,
        "decode clicks",
        ClickHandler(topics.clicks, topic, follow_logins, find_population(settings)),
        [DEAD_LETTERS, MAPPED_CLICKS, ANONYMOUS_CLICKS],
    )
    decoded_profiles = streams.batch(
        profiles, "decode profiles", ProfileHandler(topics.profiles, decode.max_record_bytes, layout), [DEAD_LETTERS]
    )
    rows = [decoded_clicks["decode clicks"], decoded_profiles["decode profiles"]]
    if follow_logins:
        without_tiles = replace(layout, tiles=())  # which are of users, not of visitors
        handler = FollowLogins(history_length, duplicates_within_ms, without_tiles)
        followed = streams.keyed_batch(
            decoded_clicks[ANONYMOUS_CLICKS], "follow logins", handler, user_slot(settings, without_tiles)
        )
        rows.append(followed["follow logins"])
    budget_ms = duration_ms(settings.execution.latency_budget)
    scored = streams.keyed_batch(
        streams.union(*rows),
        "score",
        ScoreClicks(serving, settings.feature_log.user_share, budget_ms, duplicates_within_ms),
        slot,
        ["feature_log", "shadow_scores"],
    )
    written = {
        SCORES: scored["score"],
        DEAD_LETTERS: streams.union(decoded_clicks[DEAD_LETTERS], decoded_profiles[DEAD_LETTERS]),
    }
    if settings.feature_log.user_share > 0:
        written["feature_log"] = scored["feature_log"]
    if settings.model.registry:
        written["shadow_scores"] = scored["shadow_scores"]
    if has_foreign_clicks(settings):
        written[MAPPED_CLICKS] = decoded_clicks[MAPPED_CLICKS]
    return written


def kafka_streams(streams: Streams, settings: Settings) -> tuple[Stream, Stream]:
    """The raw records of the topics of clicks and of profiles."""
    topics, source, properties = settings.topics, settings.source, consumer_properties(settings)
    clicks = streams.kafka_source(topics.clicks, source.start, source.bounded, properties)
    # Compacted: the newest profile of a user may be old. Profiles are few beside clicks: one worker is enough for them.
    profiles = streams.kafka_source(topics.profiles, "earliest", source.bounded, properties).setParallelism(1)
    return clicks, profiles


def main(arguments: Sequence[str] | None = None) -> None:
    """Check settings, model and topics, then submit the job."""
    options = parse_arguments("score_clicks", "Submit the scoring job.", arguments)
    try:
        settings = load_settings(options.conf, options.overrides)
        serving = find_serving(settings)
        if newest_table_of(settings) is None and find_population(settings) is not None:
            print(
                f"score_clicks: {settings.population.dir}: no tables yet: features of the population have no values "
                "until jobs.publish_population has published the first one",
                file=sys.stderr,
            )
        if not options.skip_topic_check:
            check_topics(settings)
    except (ConfigError, BundleError, RegistryError, PopulationError, KafkaClientError) as error:
        sys.exit(f"score_clicks: {error}")
    streams = Streams(flink_options(settings), settings.workers)
    written = score_clicks(streams, *kafka_streams(streams, settings), settings, serving)
    for role, stream in written.items():
        topic = getattr(settings.topics, role)
        streams.write_to_kafka(stream, topic, producer_properties(settings), transactional_prefix(settings, topic))
    if options.explain:
        print(streams.environment.get_execution_plan())
        return
    job = streams.environment.execute_async(settings.job.name)
    versions = ", ".join(serving.rollout.versions)
    print(f"submitted {settings.job.name}: models {versions}, job {job.get_job_id()}")


if __name__ == "__main__":
    main()
