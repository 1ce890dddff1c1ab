"""Print the table of features: `python -m udfs.features`."""

import sys
from collections.abc import Sequence

import click

from udfs.config.command_line import Command, run
from udfs.features.catalog import feature_table


@click.command("features", cls=Command)
def command() -> None:
    """Print the table of features.

    \b
    Examples:
      intent features
      intent features | grep session
    """
    print(feature_table())


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return the exit code."""
    return run(command, "python -m udfs.features", arguments)


if __name__ == "__main__":
    sys.exit(main())
