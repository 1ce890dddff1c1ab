"""Shows what is in topics: the newest records, one user's across topics in time order, or what comes from now on.

    python -m jobs.ops.peek [TOPIC ...] --conf FILE [--user ID] [--since T] [--limit N] [--follow] [--json]

TOPIC is a key of `topics` in the settings. It commits no offsets and writes nothing. Lines of JSON when piped.

Exit code: 0 shown; 1 Kafka refused or did not answer; 2 the command was not usable.
"""

import argparse
import heapq
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
from kafka import KafkaConsumer, TopicPartition
from rich.console import Console
from rich.text import Text

from jobs.common.settings import ConfigError, Settings, Topics, load_settings
from jobs.common.topics import all_topics
from jobs.ops.peek.formatting import USER_ROLES, Seen, as_json, as_line, see
from jobs.ops.time_options import time_ms
from udfs.kafka.errors import KafkaClientError
from udfs.kafka.reading import POLL_MS, open_topics, records_until_now, seek_to_time

LIMIT = 20
#: Offsets that are looked at for each record to show: markers of transactions and compaction leave some empty.
OFFSETS_EACH = 3


def peek(
    settings: Settings,
    roles: Sequence[str],
    show: Callable[[Seen], None],
    user_id: str | None = None,
    since_ms: int | None = None,
    limit: int = LIMIT,
    follow: bool = False,
) -> None:
    """Show the newest `limit` records in time order, and then, to follow, all that come. Raises KafkaClientError."""
    role_of = {getattr(settings.topics, role): role for role in roles}

    def seen(records) -> Iterator[Seen]:
        found = (see(role_of[record.topic], record) for record in records)
        return (record for record in found if user_id in (None, record.user_id))

    with open_topics(settings.kafka, *role_of) as (consumer, partitions):
        if since_ms is not None:
            seek_to_time(consumer, partitions, since_ms)
        elif user_id is None:
            _seek_near_the_end(consumer, partitions, limit * OFFSETS_EACH)
        newest = heapq.nlargest(limit, seen(records_until_now(consumer, partitions)), key=lambda record: record.order)
        for record in reversed(newest):
            show(record)
        while follow:
            polled = [record for batch in consumer.poll(timeout_ms=POLL_MS).values() for record in batch]
            for record in sorted(seen(polled), key=lambda record: record.order):
                show(record)


def _seek_near_the_end(consumer: KafkaConsumer, partitions: Sequence[TopicPartition], offsets: int) -> None:
    first = consumer.beginning_offsets(partitions)
    for partition, end in consumer.end_offsets(partitions).items():
        consumer.seek(partition, max(first[partition], end - offsets))


def _roles(settings: Settings, named: Sequence[str], user_id: str | None) -> list[str]:
    if named:
        without = [role for role in named if role not in USER_ROLES]
        if user_id is not None and without:
            raise ConfigError(f"--user: records of {', '.join(without)} are no user's; want {', '.join(USER_ROLES)}")
        return list(named)
    if user_id is None:
        raise ConfigError("name a topic, or --user ID for all topics of a user")
    return [role for role in USER_ROLES if role in all_topics(settings)]


def _print_columns(console: Console) -> Callable[[Seen], None]:
    def show(record: Seen) -> None:
        line = Text(as_line(record), no_wrap=True, overflow="ellipsis")
        line.stylize("dim", 0, 24)
        if record.role == "dead_letters":
            line.stylize("red", 26, 39)
        console.print(line)

    return show


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="jobs.ops.peek", description="Show what is in topics.")
    roles = msgspec.structs.fields(Topics)
    parser.add_argument("topics", nargs="*", metavar="TOPIC", help=", ".join(field.name for field in roles))
    parser.add_argument("--conf", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument(
        "--user", metavar="ID", help="only this user's records; without TOPIC, of all topics that have users"
    )
    parser.add_argument("--since", metavar="T", help="a duration such as 10 min, or an ISO 8601 time")
    parser.add_argument("--limit", type=int, default=LIMIT, metavar="N", help=f"the newest so many (default {LIMIT})")
    parser.add_argument("--follow", action="store_true", help="go on with what comes, until interrupted")
    parser.add_argument("--json", action="store_true", help="lines of JSON on a terminal too")
    options = parser.parse_args(arguments)
    unknown = set(options.topics) - {field.name for field in roles}
    if unknown:
        parser.error(f"no such topic in the settings: {', '.join(sorted(unknown))}")
    columns = sys.stdout.isatty() and not options.json
    show = _print_columns(Console(highlight=False)) if columns else lambda record: print(as_json(record), flush=True)
    try:
        settings = load_settings(options.conf, options.set)
        since_ms = time_ms(options.since, "--since", time.time_ns() // 1_000_000) if options.since else None
        peek(
            settings,
            _roles(settings, options.topics, options.user),
            show,
            options.user,
            since_ms,
            options.limit,
            options.follow,
        )
    except ConfigError as error:
        print(f"peek: {error}", file=sys.stderr)
        return 2
    except KafkaClientError as error:
        print(f"peek: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # how following ends
        return 0
    except BrokenPipeError:  # the reader has enough: `| head`; what is still buffered has nowhere to go
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
