"""Send dead letters back to their topics, once each, after a release that accepts them.

    python -m jobs.ops.requeue --conf FILE [--reason R] [--since T] [--until T] [--limit N] [--dry-run]

A letter goes back if the decoder of this release accepts it under these settings, so use the release that the job
runs. It returns to its partition with its bytes and its timestamp. The same transaction records it in the topic
`requeued`, so that no later run sends it again, whatever that run selects.

Exit codes: 0, done, or nothing to do; 1, Kafka refused or did not answer; 2, the options or settings can't be used.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import click
from kafka import KafkaProducer
from kafka.errors import KafkaError
from rich.console import Console
from rich.table import Table

from jobs.common.settings import ConfigError, Settings, load_settings
from jobs.ops.requeue.plan import Fate, Judge, Plan, note, note_key, noted_position, read_letter
from jobs.ops.time_options import time_ms
from udfs.config.command_line import EXIT_FAILED, EXIT_USAGE, Command, conf_option, run, set_option
from udfs.config.durations import now_ms
from udfs.contracts.outputs import DeadLetter
from udfs.contracts.rejects import Reason
from udfs.kafka.connection import open_producer
from udfs.kafka.errors import KafkaClientError
from udfs.kafka.reading import MAX_RECORD_BYTES, open_topics, records_until_now, seek_to_time

BATCH = 500  # letters in a transaction
REASONS = tuple(str(reason) for reason in Reason)
LIMIT = 100_000  # letters in a run: they are sorted in memory


@dataclass(frozen=True)
class Selection:
    """The selected letters: by reason, and written in [since, until); None selects any."""

    reason: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    limit: int = LIMIT


def preview(settings: Settings, selected: Selection) -> Plan:
    """The plan that `requeue` would carry out now. Raises KafkaClientError."""
    with open_topics(settings.kafka, settings.topics.requeued) as (consumer, partitions):
        sent = [noted_position(record.key) for record in records_until_now(consumer, partitions)]
    return Judge(settings, sent).plan(_letters(settings, selected), selected.limit)


def requeue(settings: Settings, selected: Selection) -> Plan:
    """Send the selected letters back. Raises KafkaClientError; what was sent until then is noted."""
    with _producer(settings) as producer:
        producer.init_transactions()  # fences any other run: from here on, only this one adds notes
        plan = preview(settings, selected)
        topics = {letter.topic for letter, _ in plan.letters}
        partitions = {topic: producer.partitions_for(topic) for topic in topics}
        for first in range(0, len(plan.letters), BATCH):
            with _transaction(producer):
                for letter, user_id in plan.letters[first : first + BATCH]:
                    is_there = letter.partition in partitions[letter.topic]
                    producer.send(
                        letter.topic,
                        letter.original,
                        user_id.encode(),
                        partition=letter.partition if is_there else None,
                        timestamp_ms=letter.timestamp_ms,
                    )
                    producer.send(settings.topics.requeued, note(letter, now_ms()), note_key(letter.position))
    return plan


@contextmanager
def _transaction(producer: KafkaProducer) -> Iterator[None]:
    producer.begin_transaction()
    try:
        yield
        producer.commit_transaction()
    except BaseException:
        with suppress(KafkaError):  # of a producer that was fenced or lost its broker, which aborts by itself
            producer.abort_transaction()
        raise


def _letters(settings: Settings, selected: Selection) -> Iterator[DeadLetter]:
    with open_topics(settings.kafka, settings.topics.dead_letters) as (consumer, partitions):
        if selected.since_ms is not None:
            seek_to_time(consumer, partitions, selected.since_ms)
        for record in records_until_now(consumer, partitions):
            letter = read_letter(record)
            is_late = selected.until_ms is not None and record.timestamp >= selected.until_ms
            if not is_late and selected.reason in (None, letter.reason):
                yield letter


def _producer(settings: Settings) -> AbstractContextManager[KafkaProducer]:
    """A producer with transactions."""
    name = f"{settings.job.name}-requeue"
    remedy = f"remove the cause and run the command again; what it has sent is noted in {settings.topics.requeued}"
    return open_producer(
        settings.kafka,
        f"transactional id {name}",
        remedy,
        transactional_id=name,
        max_request_size=MAX_RECORD_BYTES,
    )


def table(plan: Plan, dry_run: bool) -> Table:
    """The numbers of letters by reason and fate, as a table."""
    fates = [fate for fate in Fate if fate is Fate.SENT or any(fate is counted for _, counted in plan.counts)]
    shown = Table("reason", *(_heading(fate, dry_run) for fate in fates))
    for reason in sorted({reason for reason, _ in plan.counts}):
        shown.add_row(reason, *(str(plan.counts[reason, fate]) for fate in fates))
    shown.add_section()
    shown.add_row("all", *(str(sum(plan.counts[key] for key in plan.counts if key[1] is fate)) for fate in fates))
    return shown


def _heading(fate: Fate, dry_run: bool) -> str:
    if fate is Fate.SENT and dry_run:
        return "to send"
    return "would be rejected again" if fate is Fate.REJECTED_AGAIN else fate


@click.command("requeue", cls=Command, errors={ConfigError: EXIT_USAGE, KafkaClientError: EXIT_FAILED})
@conf_option()
@set_option("decode.max_behind=30d")
@click.option(
    "--reason",
    type=click.Choice(REASONS),
    metavar="REASON",
    help=f"Select letters rejected for this reason: {', '.join(REASONS)}.",
)
@click.option(
    "--since",
    metavar="T",
    help="Select letters written since a time: a duration before now, such as 2 h, or an ISO 8601 time.",
)
@click.option("--until", metavar="T", help="Select letters written before a time, given like --since.")
@click.option("--limit", type=click.IntRange(min=1), default=LIMIT, metavar="N", help="Send at most N letters.")
@click.option("--dry-run", is_flag=True, help="Print what would be sent, and send nothing.")
def command(
    conf: Path,
    overrides: tuple[str, ...],
    reason: str | None,
    since: str | None,
    until: str | None,
    limit: int,
    dry_run: bool,
) -> None:
    """Send dead letters back to their topics, once each.

    Sends a letter only if the decoder of this release accepts it under these settings.

    \b
    Examples:
      intent requeue --conf conf/local.yaml --dry-run
      intent requeue --conf conf/local.yaml --reason time_too_old --since "2 h"
    """
    settings = load_settings(conf, overrides)
    since_ms, until_ms = (
        None if text is None else time_ms(text, option, now_ms())
        for text, option in ((since, "--since"), (until, "--until"))
    )
    selected = Selection(reason, since_ms, until_ms, limit)
    plan = preview(settings, selected) if dry_run else requeue(settings, selected)
    Console().print(table(plan, dry_run) if plan.counts else "no such dead letters")


def main(arguments: Sequence[str] | None = None) -> int:
    """Send the selected letters back; return the exit code."""
    return run(command, "python -m jobs.ops.requeue", arguments)


if __name__ == "__main__":
    sys.exit(main())
