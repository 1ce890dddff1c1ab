"""The main job: clicks and profiles in, a score for every accepted click out.

    flink run -pym jobs.score_clicks -pyfs dist/*.whl --conf conf/local.yaml

clicks ── decode ─┬─ rejected ──────────────▶ dead_letters
                  └─ accepted ─┐
profiles ── decode ────────────┴▶ history of the user ──▶ features, score ──▶ scores, feature_log
"""

import sys
from collections.abc import Callable
from pathlib import Path

from pyflink.table import StatementSet, TableEnvironment

from jobs.decoding import profile_of, register_decoders
from jobs.settings import ConfigError, Settings, load_settings
from jobs.submission import parse_arguments, submit
from jobs.tables import kafka_tables
from jobs.topics import TopicError, check_topics
from udfs.deployment import Options
from udfs.durations import duration_ms
from udfs.flink_udfs import Score
from udfs.model import BundleError, load_bundle
from udfs.registry import RegistryError
from udfs.serving import Serving, serving_bundle, serving_registry

# The accepted and the rejected rows select the same columns beside the decoded row, or the planner would decode twice:
# so what only dead letters need (time, original bytes) travels inside that row.
DECODED_CLICKS = """
CREATE TEMPORARY VIEW decoded_clicks AS
SELECT d.user_id, d.event, d.event_id, d.event_time, d.record_ms, d.reason, d.message, d.original,
    source_partition, source_offset, arrival
FROM (
    SELECT decode_clicks(payload, CAST(record_time AS TIMESTAMP(3))) AS d, source_partition, source_offset, arrival
    FROM clicks
)
"""

DECODED_PROFILES = """
CREATE TEMPORARY VIEW decoded_profiles AS
SELECT d.user_id, d.profile, d.record_ms, d.reason, d.message, d.original, source_partition, source_offset, arrival
FROM (
    SELECT decode_profiles(record_key, payload, CAST(record_time AS TIMESTAMP(3))) AS d,
        source_partition, source_offset, arrival
    FROM profiles
)
"""

# A profile update is a row without an event: it changes the user's state and gets no score.
# Processing-time OVER answers each row at once, in arrival order; windows in event time are the feature function's
# business.
USER_STATES = """
CREATE TEMPORARY VIEW user_states AS
SELECT user_id, event IS NOT NULL AS is_event, event_id, event_time, record_ms, source_partition, source_offset,
    user_history(event, {history_length}) OVER by_user AS history,
    COUNT(event) OVER by_user AS lifetime_events,
    COALESCE(MIN(event_time) OVER by_user, 0) AS first_seen_ms,
    LAST_VALUE(profile) OVER by_user AS profile
FROM (
    SELECT user_id, event, CAST(NULL AS BYTES) AS profile,
        event_id, event_time, record_ms, source_partition, source_offset, arrival
    FROM decoded_clicks WHERE reason IS NULL
    UNION ALL
    SELECT user_id, CAST(NULL AS BYTES), profile,
        CAST(NULL AS STRING), CAST(NULL AS BIGINT), record_ms, source_partition, source_offset, arrival
    FROM decoded_profiles WHERE reason IS NULL
)
WINDOW by_user AS (PARTITION BY user_id ORDER BY arrival)
"""

# Rows without an event are filtered behind the Python call, not before: the planner would merge a filter in front with
# each sink's own one, find two different inputs and score twice.
SCORED_CLICKS = """
CREATE TEMPORARY VIEW scored_clicks AS
SELECT user_id, event_id, s.event_name, event_time, s.score, s.decision, s.arm, s.model_version, s.scored_at,
    s.features, s.feature_schema_hash, s.shadow_versions, s.shadow_scores, source_partition, source_offset
FROM (
    SELECT user_id, event_id, event_time, source_partition, source_offset,
        score_click(user_id, is_event, history, lifetime_events, first_seen_ms, profile, record_ms) AS s
    FROM user_states
)
WHERE s.model_version IS NOT NULL
"""

SCORES = """
INSERT INTO scores
SELECT user_id, event_id, event_name, event_time, score, decision, arm, model_version, scored_at, source_partition,
    source_offset
FROM scored_clicks
"""

FEATURE_LOG = """
INSERT INTO feature_log
SELECT user_id, event_id, event_time, score, model_version, feature_schema_hash, features, source_partition,
    source_offset
FROM scored_clicks WHERE features IS NOT NULL
"""

SHADOW_SCORES = """
INSERT INTO shadow_scores
SELECT user_id, event_id, event_time, model_version, score, shadow_versions, shadow_scores, scored_at,
    source_partition, source_offset
FROM scored_clicks WHERE CARDINALITY(shadow_versions) > 0
"""

DEAD_LETTERS = """
INSERT INTO dead_letters
SELECT '{clicks}', source_partition, source_offset, TO_TIMESTAMP_LTZ(record_ms, 3), reason, message, original
FROM decoded_clicks WHERE reason IS NOT NULL
UNION ALL
SELECT '{profiles}', source_partition, source_offset, TO_TIMESTAMP_LTZ(record_ms, 3), reason, message, original
FROM decoded_profiles WHERE reason IS NOT NULL
"""


def score_clicks(tables: TableEnvironment, settings: Settings, serving: Serving) -> StatementSet:
    """The whole job, over tables that exist: `clicks`, `profiles`, `scores`, `dead_letters`; `feature_log` where it is
    wanted, and `shadow_scores` where a registry is followed."""
    register_functions(tables, settings, serving)
    for view in (DECODED_CLICKS, DECODED_PROFILES, USER_STATES, SCORED_CLICKS):
        tables.execute_sql(view.format(history_length=settings.state.history_length))
    statements = tables.create_statement_set()
    statements.add_insert_sql(SCORES)
    statements.add_insert_sql(DEAD_LETTERS.format(clicks=settings.topics.clicks, profiles=settings.topics.profiles))
    if settings.feature_log.user_share > 0:
        statements.add_insert_sql(FEATURE_LOG)
    if settings.model.registry:
        statements.add_insert_sql(SHADOW_SCORES)
    return statements


def register_functions(tables: TableEnvironment, settings: Settings, serving: Serving) -> None:
    """Make the functions known to SQL: three in Python, one in Java."""
    register_decoders(tables, settings)
    budget_ms = duration_ms(settings.execution.latency_budget)
    score = Score(serving, settings.feature_log.user_share, budget_ms, profile_of(settings))
    tables.create_temporary_system_function("score_click", score.as_udf())
    tables.execute_sql("CREATE TEMPORARY SYSTEM FUNCTION user_history AS 'intent.UserHistory' LANGUAGE JAVA")


def find_serving(settings: Settings) -> Serving:
    """What the job serves: what the registry's ledger says, or else one bundle. Raises BundleError, RegistryError."""
    model, history_length = settings.model, settings.state.history_length
    options = Options(model.threshold, model.engine, model.threads, duration_ms(model.shadow_budget) / 1000)
    if model.registry:
        return serving_registry(model.registry, history_length, options, duration_ms(model.poll) / 1000)
    return serving_bundle(load_bundle(Path(model.bundle), history_length), options)


def run(tables_of: Callable[[Settings], list[str]], arguments: list[str] | None = None) -> None:
    """Check settings, model and topics, then submit the job over the tables that `tables_of` declares."""
    options = parse_arguments("score_clicks", "Submit the scoring job.", arguments)
    try:
        settings = load_settings(options.conf, options.set)
        serving = find_serving(settings)
        if not options.skip_topic_check:
            check_topics(settings)
    except (ConfigError, BundleError, RegistryError, TopicError) as error:
        sys.exit(f"score_clicks: {error}")
    submit(
        settings,
        tables_of(settings),
        lambda tables: score_clicks(tables, settings, serving),
        options.explain,
        f"models {', '.join(serving.rollout.versions)}",
    )


if __name__ == "__main__":
    run(kafka_tables)
