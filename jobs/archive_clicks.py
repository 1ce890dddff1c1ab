"""Keep accepted clicks and profiles, and the feature log where there is one, as Parquet files to train from.

    flink run -pym jobs.archive_clicks -pyfs dist/*.whl --conf conf/local.yaml --set archive.dir=s3://bucket/archive

clicks   ── decode ── accepted ─┬▶ DIR/topic=clicks/day=2026-11-24/part-...
profiles ── decode ── accepted ─┘  DIR/topic=profiles/day=...
feature_log ─────────────────────▶ DIR/topic=feature_log/day=...

Rejected records are in the score job's dead letters. Files appear when a checkpoint has completed; each record is in
exactly one of them. The day is that of Kafka's timestamp, in UTC.
"""

import sys
from collections.abc import Sequence

from pyflink.table import StatementSet, TableEnvironment

from jobs.common.decode_functions import register_decoders
from jobs.common.settings import ConfigError, Settings, archive_settings, load_settings
from jobs.common.submission import parse_arguments, submit
from jobs.common.tables import columns, create_table, feature_log_source, source_tables
from jobs.common.topics import check_topics
from udfs.contracts.outputs import FeatureVector
from udfs.kafka.errors import KafkaClientError

RECORD_FILES = """record_key BYTES, payload BYTES, record_time TIMESTAMP_LTZ(3), source_partition INT,
    source_offset BIGINT, topic STRING, `day` STRING"""
FEATURE_FILES = columns(FeatureVector, "`day` STRING")

# Both topics go into one sink, so that a failure restarts both: they share a Python worker, and Flink would restart but
# the half that noticed its end, with the worker that has ended.
ARCHIVE_RECORDS = """
INSERT INTO record_files
SELECT record_key, payload, record_time, source_partition, source_offset, topic,
    DATE_FORMAT(record_time, 'yyyy-MM-dd') AS `day`
FROM (
    SELECT CAST(NULL AS BYTES) AS record_key, COALESCE(d.click, payload) AS payload, record_time, source_partition,
        source_offset, 'clicks' AS topic
    FROM (
        SELECT decode_clicks(payload, CAST(record_time AS TIMESTAMP(3))) AS d,
            payload, record_time, source_partition, source_offset
        FROM clicks
    )
    WHERE d.reason IS NULL
    UNION ALL
    SELECT record_key, payload, record_time, source_partition, source_offset, 'profiles'
    FROM (
        SELECT decode_profiles(record_key, payload, CAST(record_time AS TIMESTAMP(3))) AS d,
            record_key, payload, record_time, source_partition, source_offset
        FROM profiles
    )
    WHERE d.reason IS NULL
)
"""

ARCHIVE_FEATURES = f"""
INSERT INTO feature_files
SELECT {", ".join(FeatureVector.__struct_fields__)}, DATE_FORMAT(record_time, 'yyyy-MM-dd')
FROM feature_log
"""


def archive_clicks(tables: TableEnvironment, settings: Settings) -> StatementSet:
    """Build the job over existing tables: `clicks`, `profiles` and `record_files`, and the feature log's two if any."""
    register_decoders(tables, settings)
    statements = tables.create_statement_set()
    statements.add_insert_sql(ARCHIVE_RECORDS)
    if settings.feature_log.user_share > 0:
        statements.add_insert_sql(ARCHIVE_FEATURES)
    return statements


def file_tables(settings: Settings) -> list[str]:
    """CREATE TABLE statements of the archive's directories."""
    directory = settings.archive.dir
    statements = [create_table("record_files", RECORD_FILES, _parquet(directory), partitioned_by="topic, `day`")]
    if settings.feature_log.user_share > 0:
        options = _parquet(f"{directory}/topic=feature_log")
        statements.append(create_table("feature_files", FEATURE_FILES, options, partitioned_by="`day`"))
    return statements


def _parquet(path: str) -> dict[str, object]:
    return {
        "connector": "filesystem",
        "path": path,
        "format": "parquet",
        "parquet.compression": "ZSTD",
        "parquet.utc-timezone": True,
        "parquet.write.int64.timestamp": True,
        "parquet.timestamp.time.unit": "millis",
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Check settings and topics, then submit the job."""
    options = parse_arguments("archive_clicks", "Submit the job that archives clicks, profiles, features.", arguments)
    try:
        settings = archive_settings(load_settings(options.conf, options.overrides))
        if not options.skip_topic_check:
            check_topics(settings)
    except (ConfigError, KafkaClientError) as error:
        sys.exit(f"archive_clicks: {error}")
    sources = source_tables(settings)
    if settings.feature_log.user_share > 0:
        sources.append(feature_log_source(settings))
    submit(
        settings,
        [*sources, *file_tables(settings)],
        lambda tables: archive_clicks(tables, settings),
        options.explain,
        f"to {settings.archive.dir}",
    )


if __name__ == "__main__":
    main()
