"""Show records of the topics: the newest ones, those of a user across topics in time order, or new ones as they come.

    python -m jobs.ops.peek [TOPIC ...] --conf FILE [--user ID] [--since T] [--limit N] [--follow] [--json]

TOPIC is a key of `topics` in the settings. The command commits no offsets and writes nothing.

Exit codes: 0, records shown; 1, Kafka refused or did not answer; 2, the options or settings can't be used.
"""

import heapq
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click
import msgspec
from kafka import KafkaConsumer, TopicPartition
from rich.console import Console
from rich.text import Text

from jobs.common.settings import ConfigError, Settings, TopicNames, load_settings
from jobs.common.topics import all_topics
from jobs.ops.peek.formatting import USER_ROLES, TopicRecord, as_json, as_line, read_record
from jobs.ops.time_options import time_ms
from udfs.config.command_line import EXIT_FAILED, EXIT_OK, EXIT_USAGE, Command, conf_option, run, set_option
from udfs.kafka.errors import KafkaClientError
from udfs.kafka.reading import POLL_MS, open_topics, records_until_now, seek_to_time

LIMIT = 20
ROLES = tuple(field.name for field in msgspec.structs.fields(TopicNames))
#: Offsets to read for each record to show: markers of transactions and compaction leave some empty.
OFFSETS_EACH = 3


def peek(
    settings: Settings,
    roles: Sequence[str],
    show: Callable[[TopicRecord], None],
    user_id: str | None = None,
    since_ms: int | None = None,
    limit: int = LIMIT,
    follow: bool = False,
) -> None:
    """Show the newest `limit` records in time order and, with `follow`, all later ones. Raises KafkaClientError."""
    role_of = {getattr(settings.topics, role): role for role in roles}

    def matching(records) -> Iterator[TopicRecord]:
        parsed = (read_record(role_of[record.topic], record) for record in records)
        return (record for record in parsed if user_id in (None, record.user_id))

    with open_topics(settings.kafka, *role_of) as (consumer, partitions):
        if since_ms is not None:
            seek_to_time(consumer, partitions, since_ms)
        elif user_id is None:
            _seek_near_the_end(consumer, partitions, limit * OFFSETS_EACH)
        newest = heapq.nlargest(
            limit, matching(records_until_now(consumer, partitions)), key=lambda record: record.order
        )
        for record in reversed(newest):
            show(record)
        while follow:
            polled = [record for batch in consumer.poll(timeout_ms=POLL_MS).values() for record in batch]
            for record in sorted(matching(polled), key=lambda record: record.order):
                show(record)


def _seek_near_the_end(consumer: KafkaConsumer, partitions: Sequence[TopicPartition], offsets: int) -> None:
    first = consumer.beginning_offsets(partitions)
    for partition, end in consumer.end_offsets(partitions).items():
        consumer.seek(partition, max(first[partition], end - offsets))


def _roles(settings: Settings, named: Sequence[str], user_id: str | None) -> list[str]:
    if named:
        without = [role for role in named if role not in USER_ROLES]
        if user_id is not None and without:
            raise ConfigError(
                f"--user: records of {', '.join(without)} belong to no user; expected one of {', '.join(USER_ROLES)}"
            )
        return list(named)
    if user_id is None:
        raise ConfigError("name a topic, or pass --user ID to search all topics that have users")
    return [role for role in USER_ROLES if role in all_topics(settings)]


def _print_columns(console: Console) -> Callable[[TopicRecord], None]:
    def show(record: TopicRecord) -> None:
        line = Text(as_line(record), no_wrap=True, overflow="ellipsis")
        line.stylize("dim", 0, 24)
        if record.role == "dead_letters":
            line.stylize("red", 26, 39)
        console.print(line)

    return show


@click.command(
    "peek", cls=Command, errors={ConfigError: EXIT_USAGE, KafkaClientError: EXIT_FAILED}, interrupted=EXIT_OK
)
@click.argument(
    "topics",
    nargs=-1,
    metavar="[TOPIC]...",
    type=click.Choice(ROLES),
    help=f"Topics by their keys in the settings: {', '.join(ROLES)}.",
)
@conf_option()
@set_option("kafka.bootstrap.servers=127.0.0.1:9092")
@click.option(
    "--user", metavar="ID", help="Show only this user's records; without TOPIC, of all topics that have users."
)
@click.option(
    "--since",
    metavar="T",
    help="Show only records since a time: a duration before now, such as 10 min, or an ISO 8601 time.",
)
@click.option("--limit", type=click.IntRange(min=1), default=LIMIT, metavar="N", help="Show only the newest N records.")
@click.option("--follow", is_flag=True, help="Keep showing new records until interrupted.")
@click.option("--json", "as_lines", is_flag=True, help="Print JSON Lines on a terminal too, as in a pipe.")
def command(
    topics: tuple[str, ...],
    conf: Path,
    overrides: tuple[str, ...],
    user: str | None,
    since: str | None,
    limit: int,
    follow: bool,
    as_lines: bool,
) -> None:
    """Show records of the topics.

    Prints columns on a terminal and JSON Lines in a pipe. Commits no offsets.

    \b
    Examples:
      intent peek scores dead_letters --conf conf/local.yaml --follow
      intent peek --user u1 --since "10 min" --conf conf/local.yaml
      intent peek dead_letters --limit 1000 --json --conf conf/local.yaml
    """
    columns = sys.stdout.isatty() and not as_lines
    show = _print_columns(Console(highlight=False)) if columns else lambda record: print(as_json(record), flush=True)
    settings = load_settings(conf, overrides)
    since_ms = time_ms(since, "--since", time.time_ns() // 1_000_000) if since else None
    try:
        peek(settings, _roles(settings, topics, user), show, user, since_ms, limit, follow)
    except BrokenPipeError:  # the reader has enough: `| head`; what is still buffered has nowhere to go
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(arguments: Sequence[str] | None = None) -> int:
    """Show records; return the exit code."""
    return run(command, "python -m jobs.ops.peek", arguments)


if __name__ == "__main__":
    sys.exit(main())
