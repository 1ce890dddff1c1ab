"""Send recorded or simulated clicks to Kafka: as fast as possible, at a steady rate, or at a multiple of their speed.

    python -m jobs.ops.replay clicks.jsonl.gz --rate 500
    python -m jobs.ops.replay events.csv.gz --mapping conf/mappings/taobao.yaml --times shift --speed 60
    python -m jobs.ops.replay --simulate users=2000,hours=24,seed=1 --profiles simulated --times shift

Exit codes: 0, all records delivered; 1, some were not, or Kafka does not answer; 2, an option or the source can't be
used; 130, interrupted.

From a program: send(producer, topic, at_rate(records, 500)), with records from file_records or click_records.
"""

import os
import signal
import sys
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

import click
import msgspec
import numpy as np
from kafka import KafkaProducer
from rich.console import Console

from jobs.ops.replay.options import SIMULATION_OPTIONS, OptionError, producer_options, simulation
from jobs.ops.replay.producer import FOR_LATENCY, FOR_THROUGHPUT, Sent, at_rate, at_recorded_speed, in_time_order, send
from jobs.ops.replay.progress import Total, shown_progress
from training.data.intake import Intake
from training.data.rows import SourceError, find_files, format_of
from training.data.sources import (
    WEEK_MS,
    Record,
    click_records,
    file_records,
    last_time,
    profile_records,
    weeks_to_shift,
)
from training.simulation.clickstream import simulate
from udfs.config.command_line import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    PATH,
    Command,
    Value,
    print_error,
    run,
)
from udfs.config.durations import now_ms
from udfs.config.reading import in_words
from udfs.contracts.clicks import ClickLimits
from udfs.kafka.connection import kafka_failures, open_producer
from udfs.kafka.errors import KafkaClientError
from udfs.kafka.properties import LOCAL_SERVERS, client_options
from udfs.kafka.topic_name import TopicName
from udfs.mapping.definition import MappingError, load_mapping

REASONS_SHOWN = 5
SIMULATED = "simulated"  # instead of a file of profiles
SIMULATE_HELP = (
    f"Send simulated clicks instead of a file. Keys are {', '.join(SIMULATION_OPTIONS)}. From shift_at hours on, all "
    "users behave as in a sale. From lift_at hours on, users between lift_start and lift_end of a rollout with the "
    "salt lift_salt, and the challenger_salt lift_challenger_salt, buy more often."
)


@dataclass(frozen=True)
class Options:
    """The options of the command."""

    source: Path | None
    simulate: str | None
    mapping: Path | None
    profiles: str | None
    limit: int | None
    rate: float | None
    speed: float | None
    times: str
    record_timestamps: str
    bootstrap_servers: str
    topic: str
    profiles_topic: str
    kafka: tuple[str, ...]


@dataclass(frozen=True)
class ReplaySource:
    """The source of the records."""

    name: str
    records: Callable[[int, Intake], Iterator[Record]]  # from the beginning, shifted by milliseconds
    total: Total
    profiles: Iterator[Record] | None


def _open_source(options: Options, resources: ExitStack) -> ReplaySource:
    source = _simulated(options, resources) if options.simulate else _from_file(options, resources)
    if options.limit is None:
        return source
    return replace(
        source,
        records=lambda shift_ms, intake: islice(source.records(shift_ms, intake), options.limit),
        total=lambda _sent: options.limit,
    )


def _simulated(options: Options, resources: ExitStack) -> ReplaySource:
    if options.mapping:
        raise OptionError("--mapping can't be combined with --simulate: simulated clicks need no mapping")
    stream = simulate(simulation(options.simulate))
    return ReplaySource(
        "simulation",
        lambda shift_ms, _intake: click_records(stream.clicks(), shift_ms),
        lambda _sent: len(stream),
        profile_records(stream.profiles) if options.profiles == SIMULATED else _profiles(options, resources),
    )


def _from_file(options: Options, resources: ExitStack) -> ReplaySource:
    mappings = load_mapping(options.mapping) if options.mapping else None
    paths = [path for path in find_files(options.source) if mappings is None or mappings.for_file(path.name)]
    if not paths:
        raise SourceError(f"{options.source}: no file matches a pattern of {mappings.name}, key files")
    sizes = [path.stat().st_size for path in paths]
    files: list[BinaryIO] = []

    def records(shift_ms: int, intake: Intake) -> Iterator[Record]:
        # Opened anew each time: a reader may have closed a file at its end.
        files[:] = [resources.enter_context(path.open("rb")) for path in paths]
        return in_time_order([file_records(file, mappings, shift_ms, intake) for file in files])

    def total(sent: int) -> float | None:
        read = sum(size if file.closed else file.tell() for file, size in zip(files, sizes))
        return sent * sum(sizes) / read if read else None

    return ReplaySource(str(options.source), records, total, _profiles(options, resources))


def _profiles(options: Options, resources: ExitStack) -> Iterator[Record] | None:
    if options.profiles is None:
        return None
    if options.profiles == SIMULATED:
        raise OptionError(f"--profiles {SIMULATED} requires --simulate")
    if format_of(options.profiles) != "jsonl":
        raise OptionError(f"--profiles {options.profiles}: expected a file of JSON Lines with one profile per line")
    return file_records(resources.enter_context(Path(options.profiles).open("rb")))


def _replay(
    options: Options, kafka: tuple[dict[str, str], dict[str, Any]], source: ReplaySource, resources: ExitStack
) -> int:
    shift_ms, total = _shift_and_total(options, source)
    intake = Intake()
    broken: list[SourceError] = []
    with_event_time = options.record_timestamps == "event"
    records = source.records(shift_ms, intake)
    first = list(islice(records, 1))  # what is wrong with a source as a whole shows before anything is sent
    if first and not with_event_time:
        _note_on_time(first[0][2])
    records = _until_broken(chain(first, records), broken)
    if options.rate:
        records = at_rate(records, options.rate)
    elif options.speed:
        records = at_recorded_speed(records, options.speed)

    properties, tuned = kafka
    defaults = FOR_LATENCY if options.rate or options.speed else FOR_THROUGHPUT
    producer = resources.enter_context(open_producer(properties, "replay", **defaults | tuned))
    results = []
    if source.profiles:
        results.append(_send(producer, options.profiles_topic, source.profiles, "profiles", lambda _sent: None, False))
    if not any(result.interrupted for result in results):
        results.append(_send(producer, options.topic, records, "events", total, with_event_time))

    for line in intake.problems():
        print(f"replay: {line}" if not line.startswith(" ") else line, file=sys.stderr)
    if broken:
        print_error("replay", broken[0])
        return EXIT_USAGE
    if any(result.interrupted for result in results):
        return EXIT_INTERRUPTED
    return EXIT_FAILED if any(result.failed for result in results) else EXIT_OK


def _shift_and_total(options: Options, source: ReplaySource) -> tuple[int, Total]:
    """The shift of event times in ms, and the total; a shift takes a first pass, which also counts the events."""
    if options.times == "keep":
        return 0, source.total
    if sys.stderr.isatty():  # the only sign of life of a long first pass
        print(f"replay: reading {source.name} for the time of its last event", file=sys.stderr)
    times, count = array("q"), 0
    for _, _, time_ms in source.records(0, Intake()):
        count += 1
        if time_ms is not None:
            times.append(time_ms)
    if not times:
        raise SourceError(f"{source.name}: --times shift: no event has a time")
    all_ms = np.array(times)
    last_ms, outliers = last_time(all_ms)
    if outliers:
        first_one = datetime.fromtimestamp(max(times) / 1000, UTC)
        print(
            f"replay: note: {outliers} events are dated long after all others, up to {first_one:%Y-%m-%d}: --times "
            "shift ignores them",
            file=sys.stderr,
        )
    shift_ms = weeks_to_shift(last_ms, now_ms())
    print(shift_text(-last_time(-all_ms)[0], last_ms, shift_ms))
    return shift_ms, lambda _sent: count


def shift_text(first_ms: int, last_ms: int, shift_ms: int) -> str:
    """The new times of events that were recorded from `first_ms` to `last_ms`, and the start of an experiment on them.

    Where they overlap with the recorded times, the experiment starts after these: an earlier replay may have had them.
    """
    if shift_ms == 0:
        return "times: not shifted, the last event lies in the week before now"
    start_ms = first_ms + shift_ms
    if first_ms <= start_ms <= last_ms:
        start_ms = last_ms + 1000
    return (
        f"times: shifted by {shift_ms // WEEK_MS:+d} weeks, to {_utc(first_ms + shift_ms)} until "
        f"{_utc(last_ms + shift_ms)}; to report on an experiment on these events: --start {_utc(start_ms)}"
    )


def _utc(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms // 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _until_broken(records: Iterable[Record], broken: list[SourceError]) -> Iterator[Record]:
    """End `records` where the source breaks off, so that what was read before is delivered and counted."""
    try:
        yield from records
    except SourceError as error:
        broken.append(error)


def _note_on_time(time_ms: int | None) -> None:
    """Warn when the job will reject an event of this time that is sent now."""
    limits = ClickLimits()
    lead_ms = 0 if time_ms is None else time_ms - now_ms()
    if not -limits.max_behind_ms <= lead_ms <= limits.max_ahead_ms:
        print(
            f"replay: note: the first event is {lead_ms / 86_400_000:+.0f} days from its Kafka timestamp; the job "
            "rejects such events by default: use --times shift or --record-timestamps event",
            file=sys.stderr,
        )


def _send(
    producer: KafkaProducer, topic: str, records: Iterable[Record], what: str, total: Total, record_timestamps: bool
) -> Sent:
    subject = f"topic {topic} at {','.join(producer.config['bootstrap_servers'])}"
    remedy = "check that the topic exists and that this user may write to it"
    with kafka_failures(subject, remedy), shown_progress(records, what, total, Console()) as shown:
        result = send(producer, topic, shown, record_timestamps)
    note = ", interrupted" if result.interrupted else ""
    print(
        f"{what}: {result.delivered} sent to {topic} in {result.seconds:.1f} s ({result.rate:.0f}/s), "
        f"{result.failed} failed{note}"
    )
    for reason, count in result.failures.most_common(REASONS_SHOWN):
        print(f"replay: {what}: {count} not delivered: {reason}", file=sys.stderr)
    return result


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise ValueError(f"expected a number above 0, got {text!r}")
    return number


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise ValueError(f"expected a whole number above 0, got {text!r}")
    return int(text)


def _topic(text: str) -> str:
    try:
        return msgspec.convert(text, TopicName)
    except msgspec.ValidationError as error:
        raise ValueError(f"{in_words(error)}, got {text!r}") from None


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Stop at SIGTERM as after Ctrl-C: flush and report. Only the main thread can handle signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@click.command(
    "replay",
    cls=Command,
    exactly_one=("source", "simulate"),
    at_most_one=("rate", "speed"),
    errors={KafkaClientError: EXIT_FAILED}
    | dict.fromkeys((MappingError, SourceError, OptionError, OSError), EXIT_USAGE),
)
@click.argument(
    "source",
    required=False,
    type=PATH,
    metavar="[FILE]",
    help="A file or a directory of files: .csv, .tsv, .jsonl, .json, .parquet or .avro; .gz and .zst too.",
)
@click.option("--simulate", metavar="KEY=VALUE,...", help=SIMULATE_HELP)
@click.option(
    "--mapping", type=PATH, metavar="FILE", help="YAML file that maps columns to fields; `intent map` proposes one."
)
@click.option(
    "--profiles", metavar="FILE", help="Profiles to send first: a .jsonl file, or `simulated` for those of --simulate."
)
@click.option("--limit", type=Value("count", _count), metavar="N", help="Send only the first N events.")
@click.option(
    "--rate", type=Value("number", _positive), metavar="RATE", help="Send RATE events per second, evenly spaced."
)
@click.option(
    "--speed",
    type=Value("number", _positive),
    metavar="SPEED",
    help="Send at SPEED times the recorded speed. Without --rate and --speed, send as fast as possible.",
)
@click.option(
    "--times",
    type=click.Choice(("keep", "shift")),
    default="keep",
    help="`shift` moves all event times by whole weeks, so that the last one lies in the week before now.",
)
@click.option(
    "--record-timestamps",
    type=click.Choice(("now", "event")),
    default="now",
    help="Kafka timestamps of the records, with which the job compares event times. With `event`, Kafka deletes "
    "records at once if their event times are older than the topic's retention.ms.",
)
@click.option("--bootstrap-servers", default=LOCAL_SERVERS, metavar="HOST:PORT,...", help="Kafka brokers.")
@click.option("--topic", type=Value("topic", _topic), default="clicks", metavar="NAME", help="Topic for the clicks.")
@click.option(
    "--profiles-topic", type=Value("topic", _topic), default="profiles", metavar="NAME", help="Topic for the profiles."
)
@click.option(
    "--kafka",
    multiple=True,
    metavar="KEY=VALUE",
    help="A client property, such as security.protocol=SASL_SSL, or any option of kafka-python's KafkaProducer. Pass "
    "secrets through the environment: 'sasl.jaas.config=${NAME}'. Can be repeated.",
)
def command(**given: Any) -> int:
    """Send recorded or simulated clicks to Kafka.

    \b
    Examples:
      intent replay clicks.jsonl.gz --rate 500
      intent replay events.csv.gz --mapping conf/mappings/taobao.yaml --times shift --speed 60
      intent replay --simulate users=2000,hours=24,seed=1 --profiles simulated --times shift
    """
    options = Options(**given)
    properties = [f"bootstrap.servers={options.bootstrap_servers}", *options.kafka]
    try:
        kafka = producer_options(properties, os.environ)
        client_options(kafka[0])
    except KafkaClientError as error:  # in an option: nothing is connected yet
        raise OptionError(str(error)) from None
    with _interrupted_by_sigterm(), ExitStack() as resources:
        return _replay(options, kafka, _open_source(options, resources), resources)


def main(arguments: Sequence[str] | None = None) -> int:
    """Send the clicks; return the exit code."""
    return run(command, "python -m jobs.ops.replay", arguments)


if __name__ == "__main__":
    sys.exit(main())
