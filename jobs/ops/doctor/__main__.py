"""Check what the score job will find with some settings: `python -m jobs.ops.doctor --conf FILE [--flink URL]`.

Exit codes: 0, nothing is missing; 1, something is missing; 2, the settings can't be read.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from jobs.common.settings import ConfigError
from jobs.ops.doctor.target import check_target
from udfs.config.command_line import EXIT_FAILED, EXIT_OK, EXIT_USAGE, Command, conf_option, run, set_option


@click.command("doctor", cls=Command, errors={ConfigError: EXIT_USAGE})
@conf_option()
@set_option("state.ttl=30d")
@click.option(
    "--flink", metavar="URL", help="REST address of the Flink cluster to check, for example http://127.0.0.1:8081."
)
def command(conf: Path, overrides: tuple[str, ...], flink: str | None) -> int:
    """Check Kafka, model and cluster before you submit a job.

    Each line reports a check: ok, unknown, or missing with a remedy. The exit code is 1 if something is missing.

    \b
    Examples:
      intent doctor --conf conf/local.yaml
      intent doctor --conf conf/mine.yaml --flink http://127.0.0.1:8081
    """
    findings = list(check_target(conf, overrides, flink))
    for finding in findings:
        print(finding)
    return EXIT_FAILED if any(finding.remedy for finding in findings) else EXIT_OK


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the findings; return the exit code."""
    return run(command, "python -m jobs.ops.doctor", arguments)


if __name__ == "__main__":
    sys.exit(main())
