"""Evaluate running experiments: the effect of each version on each KPI, and the decision, per minute.

    flink run -pym jobs.watch_experiments -pyfs dist/*.whl --conf conf/local.yaml

sessions ── sums of the user ── what a session changes in them ── summed by experiment ── each minute ──▶ experiments

SQL computes what a session contributes to each KPI. Which experiments it belongs to, and what it changes there, are
decided by the code that also makes the report. Each session is counted once, in whatever order they arrive.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from math import inf
from operator import itemgetter
from zlib import crc32

import msgspec
import numpy as np
import pandas as pd
from pyflink.common import Types
from pyflink.table import StatementSet, StreamTableEnvironment

from jobs.common.settings import ConfigError, Settings, experiment_settings, load_settings, registry_uri
from jobs.common.submission import parse_arguments, stream_table_environment, submit
from jobs.common.tables import columns, create_table, kafka_source, keyed_sink
from jobs.common.topics import check_topics
from udfs.config.durations import duration_ms, moment_ms
from udfs.contracts.outputs import ExperimentResult, Session
from udfs.flink.experiments import CHANGE_TYPE, RESULT_TYPE, UserCells, Verdicts
from udfs.kafka.errors import KafkaClientError
from udfs.kafka.reading import read_topic
from udfs.measurement.cell_changes import STATE_FORMAT
from udfs.measurement.design import Experiment, ExperimentArm, Stretch
from udfs.measurement.kpis import (
    KPIS_FILE,
    LEAST_CAPPING,
    Kpi,
    KpiError,
    Term,
    caps_of,
    load_kpis,
    sql_term,
    term_values,
    terms_of,
)
from udfs.rollout.known_experiments import ExperimentSource, FixedExperiment, LedgerExperiments
from udfs.rollout.registry import RegistryError

ARRIVING_SESSIONS = columns(Session)
READ_AT_ONCE = 50_000  # sessions, before a job is submitted

COUNTED_SESSIONS = """
SELECT user_id, arm, model_version, started_at, {terms}
FROM arriving_sessions
WHERE NOT COALESCE(is_bot, FALSE)
"""


def watch_experiments(
    tables: StreamTableEnvironment,
    settings: Settings,
    kpis: Mapping[str, Kpi],
    caps: Mapping[str, float],
    source: Callable[[], ExperimentSource],
) -> StatementSet:
    """Build the job over existing tables: `arriving_sessions`, `experiments`; each worker makes a source.

    `caps` are those of all winsorised KPIs, infinite where there is none.
    """
    terms = terms_of(kpis, caps)
    version = _state_version(settings, terms)
    amounts = ", ".join(f"{_sql_amount(term)} AS term_{number}" for number, term in enumerate(terms))
    sessions = tables.to_data_stream(tables.sql_query(COUNTED_SESSIONS.format(terms=amounts)))
    changes = (
        sessions.key_by(itemgetter(0), Types.STRING())
        .process(UserCells(source, duration_ms(settings.state.ttl)), CHANGE_TYPE)
        .name("cells of users")
        .uid(f"cells of users {version}")
    )
    verdicts = (
        changes.key_by(itemgetter(0), Types.STRING())
        .process(Verdicts(source, kpis, caps, duration_ms(settings.experiments.interval)), RESULT_TYPE)
        .name("verdicts")
        .uid(f"verdicts {version}")
    )
    statements = tables.create_statement_set()
    statements.add_insert("experiments", tables.from_data_stream(verdicts))
    return statements


def _sql_amount(term: Term) -> str:
    """A session's contribution to a term, as SQL."""
    return sql_term(Term(term.text)) if term.cap in (None, inf) else f"CAST({sql_term(term)} AS DOUBLE)"


def _state_version(settings: Settings, terms: Sequence[Term]) -> str:
    """Equal for jobs that can go on with each other's state.

    The state of one job means nothing to another with other terms, with a start of its own, or of a release with
    another format. Flink refuses such a savepoint, as it has the state of an operator that is not in the job. The
    values of caps may change.
    """
    experiment = settings.experiments
    meaning = [(term.text, term.cap is None) for term in terms], experiment.treatment, experiment.baseline
    fixed = None if experiment.start is None else moment_ms(experiment.start)
    return f"{crc32(repr((STATE_FORMAT, meaning, fixed)).encode()):08x}"


def find_source(settings: Settings) -> Callable[[], ExperimentSource]:
    """A factory of the experiments in each worker: those of the ledger, or the one in the settings.

    Raises RegistryError if there is no ledger that can be read, and ConfigError.
    """
    experiment = settings.experiments
    if experiment.start is None:
        poll_s = duration_ms(settings.model.poll) / 1000
        make = partial(LedgerExperiments, registry_uri(settings), experiment.treatment, experiment.baseline, poll_s)
        make()
        return make
    arms = experiment.treatment, experiment.baseline
    start_ms = moment_ms(experiment.start)
    stretch = Stretch(start_ms, None, *(experiment.shares[arm] for arm in arms))
    return partial(FixedExperiment, Experiment(*map(ExperimentArm, arms), (stretch,), start_ms))


def read_caps(kpis: Mapping[str, Kpi], records: Iterable[bytes], treatment: str) -> tuple[dict[str, float], list[str]]:
    """What a session counts for at most in each winsorised KPI, infinite if too few say it; and a line on each of them.

    `records` are those of topic `sessions`; the sessions of the treatment arm and of bots don't count. Raises
    msgspec.DecodeError.
    """
    winsorised = _winsorised(kpis)
    if not winsorised:
        return {}, []
    numerators = {Term(kpi.numerator) for kpi in winsorised.values()}
    parts = [_with_amounts(part, treatment, numerators) for part in _frames(records)]
    sessions = pd.concat(parts, ignore_index=True) if parts else _frame([])
    caps = caps_of(winsorised, sessions)
    lines = []
    for name, kpi in winsorised.items():
        count = np.count_nonzero(term_values(Term(kpi.numerator), sessions))
        lines.append(
            f"{name}: a session counts for at most {caps[name]:g} {kpi.numerator}, by {count:,} sessions"
            if name in caps
            else f"{name}: not winsorised: {count} sessions have {kpi.numerator}, at least {LEAST_CAPPING} needed"
        )
    return {name: caps.get(name, inf) for name in winsorised}, lines


def unread_caps(kpis: Mapping[str, Kpi]) -> tuple[dict[str, float], list[str]]:
    """Caps and lines as `read_caps` has them, where the topic is not read."""
    winsorised = _winsorised(kpis)
    return dict.fromkeys(winsorised, inf), [f"{name}: not winsorised: the topic was not read" for name in winsorised]


def _winsorised(kpis: Mapping[str, Kpi]) -> dict[str, Kpi]:
    return {name: kpi for name, kpi in kpis.items() if kpi.winsorize is not None}


def _frames(records: Iterable[bytes]) -> Iterator[pd.DataFrame]:
    """Sessions, some at a time: a topic may have more than fit into memory."""
    sessions = map(msgspec.json.Decoder(Session).decode, records)
    while part := list(islice(sessions, READ_AT_ONCE)):
        yield _frame(part)


def _frame(sessions: Sequence[Session]) -> pd.DataFrame:
    return pd.DataFrame(map(msgspec.structs.asdict, sessions), columns=Session.__struct_fields__)


def _with_amounts(sessions: pd.DataFrame, treatment: str, numerators: Iterable[Term]) -> pd.DataFrame:
    """The sessions of people, not in the treatment arm, that have one of the numerators."""
    has_any = np.any([term_values(numerator, sessions) != 0 for numerator in numerators], axis=0)
    return sessions[has_any & ~sessions["is_bot"].astype(bool) & (sessions["arm"] != treatment)]


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
    """Check settings, KPIs, ledger and topics, then submit the job."""
    options = parse_arguments("watch_experiments", "Submit the job that watches experiments.", arguments)
    try:
        settings = experiment_settings(load_settings(options.conf, options.overrides))
        kpis = load_kpis(options.conf.with_name(KPIS_FILE))
        source = find_source(settings)
        caps, lines = unread_caps(kpis)
        if not options.skip_topic_check:
            check_topics(settings, ("sessions", "experiments"))
            sessions = read_topic(settings.kafka, settings.topics.sessions)
            caps, lines = read_caps(kpis, sessions, settings.experiments.treatment)
    except (ConfigError, KpiError, RegistryError, KafkaClientError) as error:
        sys.exit(f"watch_experiments: {error}")
    except msgspec.DecodeError as error:
        sys.exit(
            f"watch_experiments: topic {settings.topics.sessions}: a record is not a session: {error}; to submit "
            "without checking the topics, add --skip-topic-check"
        )
    for line in lines:
        print(line)
    submit(
        settings,
        kafka_tables(settings),
        lambda tables: watch_experiments(tables, settings, kpis, caps, source),
        options.explain,
        f"{settings.experiments.treatment} against {settings.experiments.baseline}",
        stream_table_environment,
    )


if __name__ == "__main__":
    main()
