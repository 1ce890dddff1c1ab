"""Print the table of features: `python -m udfs.features`."""

import sys
from collections.abc import Sequence

import click

from udfs.config.command_line import Command, run
from udfs.features.declaration import STANDARD, Declaration


@click.command("features", cls=Command)
def command() -> None:
    """Print the table of features.

    \b
    Examples:
      intent features
      intent features | grep session
    """
    print(feature_table(STANDARD))


def feature_table(declaration: Declaration) -> str:
    """The features as aligned plain text, a line each."""
    lines = [("name", "group", "unit", "description")]
    lines += [(feature.name, feature.group, feature.unit, feature.description) for feature in declaration.features]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return the exit code."""
    return run(command, "python -m udfs.features", arguments)


if __name__ == "__main__":
    sys.exit(main())
