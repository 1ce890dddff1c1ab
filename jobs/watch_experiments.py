"""Evaluate a running experiment: the effect of an arm on each KPI, and the decision, per minute.

    flink run -pym jobs.watch_experiments -pyfs dist/*.whl --conf conf/local.yaml

sessions ── sums of the user, by arm ── what that changes in sums and products ── each minute, added up ──▶ experiments

All rows are only ever added: a session's row subtracts its user's previous values and adds the new ones.
So a minute's changes can be summed in a window, which writes at most once a minute whatever the traffic, and the sink
needs no updates, which Kafka could only have as records that delete the one before.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence

from pyflink.table import StatementSet, TableEnvironment

from jobs.common.event_time import interval
from jobs.common.settings import ConfigError, Settings, experiment_settings, load_settings
from jobs.common.submission import parse_arguments, submit
from jobs.common.tables import columns, create_table, kafka_source, keyed_sink
from jobs.common.topics import check_topics
from udfs.config.durations import duration_ms, moment_ms
from udfs.contracts.outputs import ExperimentResult, Session
from udfs.flink.experiments import VERDICT_TYPES, JudgeArms
from udfs.kafka.errors import KafkaClientError
from udfs.measurement.experiment import PAIRS
from udfs.measurement.kpis import KPIS_FILE, Kpi, KpiError, load_kpis, sql_value

ARRIVING_SESSIONS = columns(Session, "arrival AS PROCTIME()")

EARLIER = "earlier"  # the part of a session that is history; the other parts are the names of the two arms

# `entry` puts the user's first session in front: its time in as many digits, then its arm.
COUNTED_SESSIONS = """
CREATE TEMPORARY VIEW counted_sessions AS
SELECT user_id, arrival,
    CASE WHEN part <> 'earlier' THEN LPAD(CAST(started_at AS STRING), 14, '0') || arm END AS entry, {values}
FROM (
    SELECT *, CASE WHEN started_at < {start_ms} THEN 'earlier' WHEN arm IN ({arms}) THEN arm END AS part
    FROM arriving_sessions
)
WHERE part IS NOT NULL
"""

USER_SUMS = """
CREATE TEMPORARY VIEW user_sums AS
SELECT *, LAG(arm) OVER (PARTITION BY user_id ORDER BY arrival) AS arm_before
FROM (
    SELECT user_id, arrival, SUBSTRING(MIN(entry) OVER until_now, 15) AS arm, {sums}
    FROM counted_sessions
    WINDOW until_now AS (
        PARTITION BY user_id ORDER BY arrival ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
)
"""

USER_CHANGES = """
CREATE TEMPORARY VIEW user_changes AS
SELECT arrival, arm, CAST(1 AS DOUBLE) AS sign, {after} FROM user_sums WHERE arm IS NOT NULL
UNION ALL
SELECT arrival, arm_before, CAST(-1 AS DOUBLE), {before} FROM user_sums WHERE arm_before IS NOT NULL
"""

ARM_SUMS = """
CREATE TEMPORARY VIEW arm_sums AS
SELECT `at`, {totals}
FROM (
    SELECT EXTRACT(EPOCH FROM TUMBLE_END(arrival, {size})) * 1000 AS `at`, TUMBLE_PROCTIME(arrival, {size}) AS ended,
        {changes}
    FROM user_changes GROUP BY TUMBLE(arrival, {size})
)
WINDOW until_now AS (ORDER BY ended ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
"""

EXPERIMENTS = """
INSERT INTO experiments
SELECT `at`, '{0}', '{1}', {columns}
FROM arm_sums, LATERAL TABLE(judge_arms(ARRAY[{2}], ARRAY[{3}])) AS verdict ({columns})
"""


def watch_experiments(tables: TableEnvironment, settings: Settings, kpis: dict[str, Kpi]) -> StatementSet:
    """Build the job over existing tables: `arriving_sessions`, `experiments`."""
    experiment = settings.experiments
    arms = (experiment.treatment, experiment.baseline)
    tables.create_temporary_system_function("judge_arms", JudgeArms(*arms, kpis, experiment.shares).as_udtf())
    terms = list(dict.fromkeys(term for kpi in kpis.values() for term in (kpi.numerator, kpi.denominator)))
    start_ms = 0 if experiment.start is None else moment_ms(experiment.start)
    sums = _sums_of_arm(kpis, terms)
    numbers = {expression: number for number, expression in enumerate(dict.fromkeys(sums))}
    for view in (
        COUNTED_SESSIONS.format(
            start_ms=start_ms, arms=", ".join(map("'{}'".format, arms)), values=_values(arms, terms)
        ),
        USER_SUMS.format(
            sums=_running(f"{part}_{number}" for part in (*arms, EARLIER) for number in range(len(terms)))
        ),
        USER_CHANGES.format(
            after=_counted("arm", "sum_{0}", arms, len(terms)),
            before=_counted("arm_before", "sum_{0} - {0}", arms, len(terms)),
        ),
        ARM_SUMS.format(
            size=interval(duration_ms(experiment.interval)),
            changes=", ".join(
                f"SUM(CASE WHEN arm = '{arm}' THEN {expression} ELSE 0 END) AS {arm}_{number}"
                for arm in arms
                for expression, number in numbers.items()
            ),
            totals=_running(f"{arm}_{number}" for arm in arms for number in numbers.values()),
        ),
    ):
        tables.execute_sql(view)
    arrays = (", ".join(f"sum_{arm}_{numbers[expression]}" for expression in sums) for arm in arms)
    statements = tables.create_statement_set()
    statements.add_insert_sql(EXPERIMENTS.format(*arms, *arrays, columns=", ".join(VERDICT_TYPES)))
    return statements


def _values(arms: Sequence[str], terms: Sequence[str]) -> str:
    """A session's contribution to each term's sum, by the part that it belongs to: columns PART_N."""
    return ", ".join(
        f"CASE WHEN part = '{part}' THEN CAST({sql_value(term)} AS DOUBLE) ELSE 0 END AS {part}_{number}"
        for part in (*arms, EARLIER)
        for number, term in enumerate(terms)
    )


def _running(columns: Iterable[str]) -> str:
    """Columns and their sums until now."""
    return ", ".join(f"{column}, SUM({column}) OVER until_now AS sum_{column}" for column in columns)


def _counted(arm: str, value: str, arms: Sequence[str], terms: int) -> str:
    """A user's values in an arm: each term's sum in that arm, `now_N`, and its history, `before_N`."""
    treatment, baseline = arms
    return ", ".join(
        f"CASE WHEN {arm} = '{treatment}' THEN {value.format(f'{treatment}_{number}')} "
        f"ELSE {value.format(f'{baseline}_{number}')} END AS now_{number}, "
        f"{value.format(f'{EARLIER}_{number}')} AS before_{number}"
        for number in range(terms)
    )


def _sums_of_arm(kpis: Mapping[str, Kpi], terms: Sequence[str]) -> list[str]:
    """The expressions to sum over an arm's users, in the order of ArmStatistics.of_sums."""
    sums = ["sign"]
    for kpi in kpis.values():
        numbers = terms.index(kpi.numerator), terms.index(kpi.denominator)
        values = [f"{when}_{number}" for when in ("now", "before") for number in numbers]
        sums += [f"sign * {value}" for value in values]
        sums += [f"sign * {values[first]} * {values[second]}" for first, second in PAIRS]
    return sums


def kafka_tables(settings: Settings) -> list[str]:
    """CREATE TABLE statements of the topics that the job reads and writes."""
    topics = settings.topics
    sessions = kafka_source(settings, topics.sessions) | {
        "format": "json",
        "properties.isolation.level": "read_committed",
    }
    return [
        create_table("arriving_sessions", ARRIVING_SESSIONS, sessions),
        create_table("experiments", columns(ExperimentResult), keyed_sink(settings, topics.experiments, "kpi")),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Check settings, KPIs and topics, then submit the job."""
    options = parse_arguments("watch_experiments", "Submit the job that watches an experiment.", arguments)
    try:
        settings = experiment_settings(load_settings(options.conf, options.overrides))
        kpis = load_kpis(options.conf.with_name(KPIS_FILE))
        if not options.skip_topic_check:
            check_topics(settings, ("sessions", "experiments"))
    except (ConfigError, KpiError, KafkaClientError) as error:
        sys.exit(f"watch_experiments: {error}")
    submit(
        settings,
        kafka_tables(settings),
        lambda tables: watch_experiments(tables, settings, kpis),
        options.explain,
        f"{settings.experiments.treatment} against {settings.experiments.baseline}",
    )


if __name__ == "__main__":
    main()
