"""Create the topics of the jobs that are missing: `python -m jobs.ops.topics --conf conf/local.yaml`."""

import argparse
import sys
from pathlib import Path

from jobs.common.settings import ConfigError, load_settings
from jobs.common.topics import create_topics
from udfs.kafka.errors import KafkaClientError


def main() -> None:
    parser = argparse.ArgumentParser(prog="jobs.ops.topics", description="Create the job's topics that are missing.")
    parser.add_argument("--conf", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--partitions", type=int, default=4, help="at least the job's parallelism (default 4)")
    parser.add_argument("--replication", type=int, default=1)
    arguments = parser.parse_args()
    try:
        created = create_topics(
            load_settings(arguments.conf, arguments.set), arguments.partitions, arguments.replication
        )
    except (ConfigError, KafkaClientError) as error:
        sys.exit(f"topics: {error}")
    print(f"created {', '.join(created)}" if created else "all topics exist")


if __name__ == "__main__":
    main()
