"""Measure sessions by user and arm, and from them the KPIs per minute and per hour.

    flink run -pym jobs.measure_sessions -pyfs dist/*.whl --conf conf/local.yaml

scores ── arm ──────────────┐                                         ┌▶ sessions
clicks ── decode ── action ─┴▶ session of the user, 30 min of silence ┴▶ sums by minute, hour and arm ──▶ kpis
                               promotions by minute, hour, arm and placement ─────────────────────────▶ kpis

The job runs in event time: a session closes when other users' events show that 30 minutes have passed.
"""

import sys
from collections.abc import Sequence

from pyflink.table import StatementSet, TableEnvironment

from jobs.common.event_time import click_tables, counted_once, interval, timed_columns
from jobs.common.settings import ConfigError, Settings, click_topic, load_settings, session_settings
from jobs.common.statements import build_job
from jobs.common.submission import parse_arguments, submit
from jobs.common.tables import columns, create_table, kafka_sink, kafka_source, keyed_sink
from jobs.common.topics import check_topics
from udfs.config.durations import duration_ms
from udfs.contracts.outputs import BOT, KpiValue, Score, Session
from udfs.features.declaration import SESSION_GAP_MS
from udfs.flink.sessions import ReadActions
from udfs.kafka.errors import KafkaClientError
from udfs.measurement.bots import sql_is_bot
from udfs.measurement.kpis import COUNTED, KPIS_FILE, Kpi, KpiError, load_kpis, sql_sum

SENT_ACTIONS = """
CREATE TEMPORARY VIEW sent_actions AS
SELECT a.user_id, a.event_name, a.event_time, a.page, a.revenue, a.placement, a.device, a.event_key, a.purchase_key,
    happened, source_partition, source_offset, PROCTIME() AS arrival
FROM (
    SELECT read_actions(payload, CAST(record_time AS TIMESTAMP(3))) AS a, happened, source_partition, source_offset
    FROM event_clicks
)
WHERE a.user_id IS NOT NULL
"""

_COLUMNS = """user_id, event_name, event_time, page, revenue, placement, device, event_key, happened,
    source_partition, source_offset"""

# A session belongs to the arm of its first score: MIN finds it, behind the time in as many digits. It finds the
# first device likewise. Scores alone, of clicks that retention has deleted, are no session.
CLOSED_SESSIONS = """
CREATE TEMPORARY VIEW closed_sessions AS
SELECT *
FROM (
    SELECT user_id, SPLIT_INDEX(MIN(served), '|', 1) AS arm, SPLIT_INDEX(MIN(served), '|', 2) AS model_version,
        CAST(NULLIF(SPLIT_INDEX(MIN(served), '|', 3), '') AS DOUBLE) AS propensity,
        MIN(event_time) AS started_at, MAX(event_time) AS ended_at, {counts}, COUNT(DISTINCT page) AS pages,
        SPLIT_INDEX(MIN(used), '|', 1) AS device, MAX(score) AS top_score,
        SUM(revenue) AS revenue, SESSION_ROWTIME(happened, {gap}) AS closed
    FROM (
        SELECT user_id, happened, event_time, event_name, event_key, page, revenue,
            LPAD(CAST(event_time AS STRING), 14, '0') || '|' || device AS used, CAST(NULL AS STRING) AS served,
            CAST(NULL AS FLOAT) AS score
        FROM actions
        UNION ALL
        SELECT user_id, happened, event_time, CAST(NULL AS STRING), CAST(NULL AS BIGINT), CAST(NULL AS BIGINT),
            CAST(0 AS DOUBLE), CAST(NULL AS STRING),
            LPAD(CAST(event_time AS STRING), 14, '0') || '|' || arm || '|' || model_version || '|'
                || COALESCE(CAST(propensity AS STRING), ''), score
        FROM timed_scores
    )
    GROUP BY user_id, SESSION(happened, {gap})
)
WHERE events > 0
"""

# In KPIs, bots are in no arm.
JUDGED_SESSIONS = """
CREATE TEMPORARY VIEW judged_sessions AS
SELECT *, CASE WHEN is_bot THEN '{bot}' ELSE arm END AS counted_as
FROM (SELECT *, {is_bot} AS is_bot FROM closed_sessions)
"""

SESSIONS = f"""
INSERT INTO sessions
SELECT {", ".join(Session.__struct_fields__)} FROM judged_sessions
"""

# A session counts in the window in which it closes: when its silence has lasted for the gap.
SESSION_SUMS = """
SELECT EXTRACT(EPOCH FROM TUMBLE_START(closed, {size})) * 1000 AS window_start, '{window}' AS `window`,
    counted_as AS arm, CAST(NULL AS STRING) AS placement, ARRAY[{sums}] AS sums
FROM judged_sessions GROUP BY TUMBLE(closed, {size}), counted_as
"""

# A promotion's arm is that of its own score.
PROMOTION_SUMS = """
SELECT EXTRACT(EPOCH FROM TUMBLE_START(happened, {size})) * 1000 AS window_start, '{window}' AS `window`, arm,
    placement, ARRAY[ROW('click_through_rate', CAST({clicks} AS DOUBLE), CAST({impressions} AS DOUBLE))] AS sums
FROM placed_promotions GROUP BY TUMBLE(happened, {size}), arm, placement
"""

# Without a key, an action has that of its position: the score job may write the score again, and so the row.
PLACED_PROMOTIONS = """
CREATE TEMPORARY VIEW placed_promotions AS
SELECT a.happened, a.event_name, a.placement, s.arm,
    COALESCE(a.event_key, a.source_partition * CAST(1099511627776 AS BIGINT) + a.source_offset) AS event_key
FROM actions AS a JOIN timed_scores AS s
ON a.user_id = s.user_id AND a.source_partition = s.source_partition AND a.source_offset = s.source_offset
    AND s.happened BETWEEN a.happened AND a.happened
WHERE a.placement IS NOT NULL
"""

KPIS = """
INSERT INTO kpis
SELECT window_start, `window`, arm, placement, kpi, numerator, denominator,
    CASE WHEN denominator > 0 THEN numerator / denominator END
FROM ({sums}) CROSS JOIN UNNEST(sums) AS of_kpi (kpi, numerator, denominator)
"""

WINDOWS = {"minute": "INTERVAL '1' MINUTE", "hour": "INTERVAL '1' HOUR"}


def measure_sessions(tables: TableEnvironment, settings: Settings, kpis: dict[str, Kpi]) -> StatementSet:
    """Build the job over existing tables: `event_clicks`, `timed_scores`, `sessions`, `kpis`."""
    within_ms = duration_ms(settings.clicks.duplicates_within)
    reader = ReadActions(click_topic(settings), within_ms)
    tables.create_temporary_system_function("read_actions", reader.as_udf())
    counts = {"events": how_many("event_name IS NOT NULL", within_ms)} | {
        name: how_many(f"event_name = '{event}'", within_ms) for name, event in COUNTED.items()
    }
    sessions = CLOSED_SESSIONS.format(
        counts=", ".join(f"{count} AS {name}" for name, count in counts.items()), gap=interval(SESSION_GAP_MS)
    )
    judged = JUDGED_SESSIONS.format(bot=BOT, is_bot=sql_is_bot(settings.bots))
    # An event that is sent again counts once. Purchases are few: the key of each is kept for state.ttl, since an order
    # may be reported again days later. Sessions and windows keep those of all other events until they close.
    actions = counted_once("actions", _COLUMNS, "sent_actions", "purchase_key", within_ms)
    sums = ", ".join(
        f"ROW('{name}', {sql_sum(kpi.numerator)}, {sql_sum(kpi.denominator)})" for name, kpi in kpis.items()
    )
    placed = {
        part: f"COUNT(DISTINCT event_key) FILTER (WHERE event_name = '{event}')"
        for part, event in (("clicks", "select_promotion"), ("impressions", "view_promotion"))
    }
    rows = [
        part
        for window, size in WINDOWS.items()
        for part in (
            SESSION_SUMS.format(window=window, size=size, sums=sums),
            PROMOTION_SUMS.format(window=window, size=size, **placed),
        )
    ]
    # Both sinks share what a view computes: each click is read once, and each session is kept once.
    tables.get_config().set("table.optimizer.reuse-optimize-block-with-digest-enabled", "true")
    views = (SENT_ACTIONS, actions, sessions, judged, PLACED_PROMOTIONS)
    return build_job(tables, views, (SESSIONS, KPIS.format(sums=" UNION ALL ".join(rows))))


def how_many(condition: str, within_ms: int) -> str:
    """The number of events that meet a condition, as SQL; those of equal keys are one, unless `within_ms` is 0.

    Flink keeps each key once for all these counts of a window.
    """
    if not within_ms:
        return f"COUNT(CASE WHEN {condition} THEN 1 END)"
    return (
        f"COUNT(CASE WHEN {condition} AND event_key IS NULL THEN 1 END)"
        f" + COUNT(DISTINCT event_key) FILTER (WHERE {condition})"
    )


def score_columns(settings: Settings) -> str:
    """The columns of `timed_scores`, whose rowtime is that of the click."""
    return timed_columns(Score, "event_time", settings)


def kafka_tables(settings: Settings) -> list[str]:
    """CREATE TABLE statements of the topics that the job reads and writes."""
    topics = settings.topics
    scores = kafka_source(settings, topics.scores) | {"format": "json"}
    clicks = kafka_source(settings, topics.clicks) | {"format": "raw"}
    return [
        create_table("timed_scores", score_columns(settings), scores),
        *click_tables(settings, clicks),
        create_table("sessions", columns(Session), keyed_sink(settings, topics.sessions)),
        create_table("kpis", columns(KpiValue), kafka_sink(settings, topics.kpis) | {"format": "json"}),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Check settings, KPIs and topics, then submit the job."""
    options = parse_arguments("measure_sessions", "Submit the job that measures sessions and KPIs.", arguments)
    try:
        settings = session_settings(load_settings(options.conf, options.overrides))
        kpis = load_kpis(options.conf.with_name(KPIS_FILE))
        if not options.skip_topic_check:
            check_topics(settings, ("clicks", "scores", "sessions", "kpis"))
    except (ConfigError, KpiError, KafkaClientError) as error:
        sys.exit(f"measure_sessions: {error}")
    submit(
        settings,
        kafka_tables(settings),
        lambda tables: measure_sessions(tables, settings, kpis),
        options.explain,
        f"KPIs {', '.join(kpis)}",
    )


if __name__ == "__main__":
    main()
