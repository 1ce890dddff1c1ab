"""Check clicks before anything is built on them: `python -m training.check events.csv --mapping FILE`.

Exit codes: 0, every row is an accepted click; 1, some are not; 2, the data or the mapping can't be read.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from training.data.rows import SourceError
from training.inspection.inspection import Inspection, inspect
from training.inspection.text import facts, problems
from udfs.config.command_line import EXIT_FAILED, EXIT_OK, EXIT_USAGE, PATH, Command, run
from udfs.features.declaration import Declaration
from udfs.features.declaration_file import STANDARD, DeclarationError, load_declaration
from udfs.mapping.definition import MappingError, MappingFile, load_mapping
from udfs.measurement.labels import LABELS_FILE, Label, LabelError, find_label

NAME_WIDTH = 14


def text(found: Inspection) -> str:
    """The inspection on one screen."""
    lines = [f"  {name:{NAME_WIDTH}}{value}" for name, value in facts(found)]
    found_problems = problems(found)
    if found_problems:
        lines += ["", *(line if line.startswith(" ") else f"! {line}" for line in found_problems)]
    return "\n".join(lines)


def _inspect(data: Path, mappings: MappingFile | None, label: Label, declaration: Declaration) -> Inspection:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("reading", total=None)

        def progress(file: int, files: int, records: int) -> None:
            bar.update(task, description=f"reading part {file + 1} of {files}: {records:,} records")

        return inspect(data, mappings, label, progress, declaration)


@click.command(
    "check",
    cls=Command,
    errors=dict.fromkeys((SourceError, MappingError, LabelError, DeclarationError, OSError), EXIT_USAGE),
)
@click.argument(
    "data",
    type=PATH,
    metavar="FILE",
    help="An archive, a file or a directory of files: .csv, .tsv, .jsonl, .json, .parquet or .avro; .gz and .zst too.",
)
@click.option("--mapping", type=PATH, metavar="FILE", help="YAML file that maps columns to fields; see `intent map`.")
@click.option(
    "--label",
    default="purchase within 30 min",
    metavar="LABEL",
    help="Label whose positives are counted: a name from conf/labels.yaml, or `EVENT within DURATION`.",
)
@click.option(
    "--declaration", type=PATH, metavar="FILE", help="Declaration of features that has kinds of events of your own."
)
@click.option("--html", type=PATH, metavar="FILE", help="Also write the result to this HTML page, with plots.")
def command(data: Path, mapping: Path | None, label: str, declaration: Path | None, html: Path | None) -> int:
    """Check which recorded clicks will be accepted.

    Reads the clicks as training and the job do, without a broker.

    \b
    Examples:
      intent check clicks.jsonl.gz
      intent check events.csv --mapping conf/mappings/rees46.yaml --html check.html
    """
    mappings = load_mapping(mapping) if mapping else None
    declared = load_declaration(declaration) if declaration else STANDARD
    found = _inspect(data, mappings, find_label(label, Path("conf", LABELS_FILE)), declared)
    title = " with ".join(click.format_filename(path) for path in (data, mapping) if path is not None)
    print(f"{title}\n{text(found)}")
    if html is not None:
        from training.inspection.page import page  # matplotlib takes a second to import

        html.write_text(page(found, title), encoding="utf-8")
        print(f"wrote {click.format_filename(html)}")
    return EXIT_OK if found.is_clean else EXIT_FAILED


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the inspection; return the exit code."""
    return run(command, "python -m training.check", arguments)


if __name__ == "__main__":
    sys.exit(main())
