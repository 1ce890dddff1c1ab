"""Sends recorded or simulated clicks to Kafka: as fast as possible, at a steady rate, or as fast as they happened.

    python -m jobs.ops.replay clicks.jsonl.gz --rate 500
    python -m jobs.ops.replay events.csv.gz --mapping conf/mappings/taobao.yaml --times shift --speed 60
    python -m jobs.ops.replay --simulate users=2000,hours=24,seed=1 --profiles simulated --times shift

From a program: send(producer, topic, at_rate(records, 500)), with records from file_records or click_records.
"""

import argparse
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path

from kafka import KafkaProducer
from rich.console import Console

from jobs.ops.replay.options import SIMULATION_OPTIONS, OptionError, producer_options, simulation
from jobs.ops.replay.producer import FOR_LATENCY, FOR_THROUGHPUT, Sent, at_rate, at_recorded_speed, send
from jobs.ops.replay.progress import Total, shown_progress
from training.data.mapping import MappingError, load_mapping
from training.data.sources import (
    Record,
    SourceError,
    UnfitReporter,
    click_records,
    count_and_last_time,
    file_records,
    format_of,
    ignore_unfit,
    parquet_metadata,
    profile_records,
    weeks_to_shift,
)
from training.simulation.clickstream import simulate
from udfs.contracts.clicks import ClickLimits
from udfs.kafka.connection import kafka_failures, open_producer
from udfs.kafka.errors import KafkaClientError
from udfs.kafka.properties import LOCAL_SERVERS

REASONS_SHOWN = 5
EXIT_INTERRUPTED = 130
SIMULATED = "simulated"  # instead of a file of profiles
SIMULATE_HELP = (
    f"simulated clicks; keys are {', '.join(SIMULATION_OPTIONS)}. At shift_at hours everybody begins to behave as in a "
    "sale; from lift_at hours on, users at lift_start to lift_end of a rollout with the salt lift_salt buy more often"
)


@dataclass(frozen=True)
class Source:
    """What is replayed."""

    name: str
    records: Callable[[int, UnfitReporter], Iterator[Record]]  # from the beginning, shifted by so many milliseconds
    total: Total
    profiles: Iterator[Record] | None


@dataclass
class UnfitRows:
    """How many rows a mapping could not adapt, and why the first of them."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, number: int, reason: str) -> None:
        self.count += 1
        if self.count <= REASONS_SHOWN:
            self.first.append(f"row {number}: {reason}")


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 1 after failed deliveries, 2 for an unusable option or source, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        options.kafka = producer_options([f"bootstrap.servers={options.bootstrap_servers}", *options.kafka], os.environ)
        with ExitStack() as resources:
            return _replay(options, _open_source(options, resources), resources)
    except (MappingError, SourceError, OptionError, KafkaClientError, OSError) as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.ops.replay", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("source", nargs="?", type=Path, help="a .csv, .jsonl (either also .gz) or .parquet file")
    source.add_argument("--simulate", metavar="KEY=VALUE,...", help=SIMULATE_HELP)
    parser.add_argument("--mapping", type=Path, help="YAML file that says which column is which field (conf/mappings)")
    parser.add_argument("--profiles", metavar="FILE", help="a .jsonl file of profiles to send first, or: simulated")
    parser.add_argument("--limit", type=_count, metavar="N", help="send the first N events only")

    pace = parser.add_mutually_exclusive_group()
    pace.add_argument("--rate", type=_positive, help="events a second, evenly")
    pace.add_argument("--speed", type=_positive, help="as recorded, so many times as fast; by default: flat out")

    parser.add_argument(
        "--times",
        choices=("keep", "shift"),
        default="keep",
        help="shift: move all event times by whole weeks, so that the last one lies in the week before now",
    )
    parser.add_argument(
        "--record-timestamps",
        choices=("now", "event"),
        default="now",
        help="the Kafka timestamps, which the job compares event times with; by event times that are old, a topic with "
        "retention.ms deletes its records at once",
    )

    parser.add_argument("--bootstrap-servers", default=LOCAL_SERVERS, metavar="HOST:PORT,...")
    parser.add_argument("--topic", type=_topic, default="clicks")
    parser.add_argument("--profiles-topic", type=_topic, default="profiles")
    parser.add_argument(
        "--kafka",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a client property, such as security.protocol=SASL_SSL, or any option of kafka-python's KafkaProducer; a "
        "secret only from the environment: 'sasl.jaas.config=${NAME}'",
    )
    return parser


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: want a number above 0")
    return number


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r}: want a whole number above 0")
    return int(text)


def _topic(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", text):
        raise argparse.ArgumentTypeError(f"{text!r}: want at most 249 of A-Z, a-z, 0-9, '.', '_' and '-'")
    return text


def _open_source(options: argparse.Namespace, resources: ExitStack) -> Source:
    source = _simulated(options, resources) if options.simulate else _from_file(options, resources)
    if options.limit is None:
        return source
    return replace(
        source,
        records=lambda shift_ms, on_unfit: islice(source.records(shift_ms, on_unfit), options.limit),
        total=lambda _sent: options.limit,
    )


def _simulated(options: argparse.Namespace, resources: ExitStack) -> Source:
    if options.mapping:
        raise OptionError("--mapping: simulated clicks need none")
    stream = simulate(simulation(options.simulate))
    return Source(
        "simulation",
        lambda shift_ms, _on_unfit: click_records(stream.clicks(), shift_ms),
        lambda _sent: len(stream),
        profile_records(stream.profiles) if options.profiles == SIMULATED else _profiles(options, resources),
    )


def _from_file(options: argparse.Namespace, resources: ExitStack) -> Source:
    mapping = load_mapping(options.mapping) if options.mapping else None
    file_format = format_of(options.source.name)
    file = resources.enter_context(options.source.open("rb"))
    size = options.source.stat().st_size

    def records(shift_ms: int, on_unfit: UnfitReporter) -> Iterator[Record]:
        file.seek(0)
        return file_records(file, mapping, shift_ms, on_unfit, str(options.mapping))

    def total(sent: int) -> float | None:
        return sent * size / file.tell() if file.tell() else None

    rows = parquet_metadata(file, file.name).num_rows if file_format == ".parquet" else None
    return Source(
        str(options.source), records, total if rows is None else lambda _sent: rows, _profiles(options, resources)
    )


def _profiles(options: argparse.Namespace, resources: ExitStack) -> Iterator[Record] | None:
    if options.profiles is None:
        return None
    if options.profiles == SIMULATED:
        raise OptionError(f"--profiles {SIMULATED}: needs --simulate")
    if format_of(options.profiles) != ".jsonl":
        raise OptionError(f"--profiles {options.profiles}: want a .jsonl or .jsonl.gz file, a profile a line")
    return file_records(resources.enter_context(Path(options.profiles).open("rb")))


def _replay(options: argparse.Namespace, source: Source, resources: ExitStack) -> int:
    shift_ms, total = _shift_and_total(options, source)
    unfit = UnfitRows()
    broken: list[SourceError] = []
    with_event_time = options.record_timestamps == "event"
    records = source.records(shift_ms, unfit.add)
    first = list(islice(records, 1))  # what is wrong with a source as a whole shows before anything is sent
    if first and not with_event_time:
        _note_on_time(first[0][2])
    records = _until_broken(chain(first, records), broken)
    if options.rate:
        records = at_rate(records, options.rate)
    elif options.speed:
        records = at_recorded_speed(records, options.speed)

    properties, tuned = options.kafka
    defaults = FOR_LATENCY if options.rate or options.speed else FOR_THROUGHPUT
    producer = resources.enter_context(open_producer(properties, "replay", **defaults | tuned))
    results = []
    if source.profiles:
        results.append(_send(producer, options.profiles_topic, source.profiles, "profiles", lambda _sent: None, False))
    if not any(result.interrupted for result in results):
        results.append(_send(producer, options.topic, records, "events", total, with_event_time))

    _report_unfit(unfit)
    if broken:
        return _refuse(str(broken[0]))
    if any(result.interrupted for result in results):
        return EXIT_INTERRUPTED
    return 1 if any(result.failed for result in results) else 0


def _shift_and_total(options: argparse.Namespace, source: Source) -> tuple[int, Total]:
    """How far to move event times. Moving them takes a first pass for the last one, which also counts the events."""
    if options.times == "keep":
        return 0, source.total
    count, last_ms = count_and_last_time(source.records(0, ignore_unfit))
    if last_ms is None:
        raise SourceError(f"{source.name}: --times shift: no event has a time")
    return weeks_to_shift(last_ms, _now_ms()), lambda _sent: count


def _until_broken(records: Iterable[Record], broken: list[SourceError]) -> Iterator[Record]:
    """End `records` where the source breaks off, so that what was read before is delivered and counted."""
    try:
        yield from records
    except SourceError as error:
        broken.append(error)


def _note_on_time(time_ms: int | None) -> None:
    """Say so when the job will reject an event of this time that is sent now."""
    limits = ClickLimits()
    lead_ms = 0 if time_ms is None else time_ms - _now_ms()
    if not -limits.max_behind_ms <= lead_ms <= limits.max_ahead_ms:
        print(
            f"replay: note: the first event is {lead_ms / 86_400_000:+.0f} days from its Kafka timestamp; the job "
            "rejects that by default: use --times shift or --record-timestamps event",
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


def _report_unfit(unfit: UnfitRows) -> None:
    if unfit.count:
        print(
            f"replay: {unfit.count} rows could not be adapted and were sent as they are, for example", file=sys.stderr
        )
        print("\n".join(unfit.first), file=sys.stderr)


def _refuse(message: str) -> int:
    print(f"replay: {message}", file=sys.stderr)
    return 2


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # to stop like after Ctrl-C: flush and report
    sys.exit(main())
