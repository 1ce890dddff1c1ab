"""Create the topics of the jobs that are missing: `python -m jobs.ops.topics --conf conf/local.yaml`.

Exit codes: 0, all topics exist; 1, Kafka refused or did not answer; 2, the settings or options can't be used.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from jobs.common.settings import ConfigError, load_settings
from jobs.common.topics import create_topics
from udfs.config.command_line import EXIT_FAILED, EXIT_USAGE, Command, conf_option, run, set_option
from udfs.kafka.errors import KafkaClientError


@click.command("topics", cls=Command, errors={ConfigError: EXIT_USAGE, KafkaClientError: EXIT_FAILED})
@conf_option()
@set_option("topics.clicks=shop-clicks")
@click.option("--partitions", type=int, default=4, help="Partitions per topic, at least the parallelism of the jobs.")
@click.option("--replication", type=int, default=1, help="Replicas per partition.")
def command(conf: Path, overrides: tuple[str, ...], partitions: int, replication: int) -> None:
    """Create the Kafka topics that are missing.

    \b
    Examples:
      intent topics --conf conf/local.yaml
      intent topics --conf conf/mine.yaml --partitions 8 --replication 3
    """
    created = create_topics(load_settings(conf, overrides), partitions, replication)
    print(f"created {', '.join(created)}" if created else "all topics exist")


def main(arguments: Sequence[str] | None = None) -> int:
    """Create the topics that are missing; return the exit code."""
    return run(command, "python -m jobs.ops.topics", arguments)


if __name__ == "__main__":
    sys.exit(main())
