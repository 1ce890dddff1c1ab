"""Make tables of what all users did from recorded clicks: `python -m training.population --clicks archive --out DIR`.

Exit codes: 0, the tables are written; 2, refused.
"""

import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import mkdtemp

import click

from training.data.intake import counted
from training.data.preparation import Preparation, PrepareError, make_tables
from training.data.progress_bar import progress_bar
from udfs.config.command_line import EXIT_USAGE, PATH, Command, run
from udfs.config.durations import duration_ms
from udfs.contracts.outputs import iso_time
from udfs.features.declaration_file import load_declaration, population
from udfs.mapping.definition import load_mapping
from udfs.measurement.labels import CONVERTED
from udfs.population.store import PopulationError, TableStore
from udfs.population.tables import Counted, Table

KEYS_SHOWN = 5
KEEP = "7 d"  # as population.keep of the jobs' settings


def text(table: Table) -> Iterator[str]:
    """What a table counts, in a few lines: of each column the most common values, with their counts."""
    for by in dict.fromkeys(what.by for what in table.counts):
        columns = [what for what in table.counts if what.by == by]
        keys, counts = table.counts[columns[0]]
        if by is None:
            yield f"all together: {', '.join(_figure(table, what) for what in columns)}"
            continue
        yield f"by {by}: {counted(len(keys), 'value')}; the most common, as CRC-32 or code:"
        for key in keys[(-counts.sum(1)).argsort(kind="stable")[:KEYS_SHOWN]].tolist():
            yield f"  {key:08x}: {', '.join(_figure(table, what, key) for what in columns)}"


def _figure(table: Table, what: Counted, key: int | None = None) -> str:
    keys, counts = table.counts[what]
    total = counts.sum() if key is None else counts[keys == key].sum()
    return f"{total:,.1f} {what.kind or 'events'}"


@click.command("population", cls=Command, errors={ValueError: EXIT_USAGE, OSError: EXIT_USAGE})
@click.option(
    "--clicks",
    type=PATH,
    required=True,
    metavar="PATH",
    help="Clicks to count: an archive, a file or a directory of files (CSV, JSON Lines, JSON, Parquet, Avro).",
)
@click.option("--mapping", type=PATH, metavar="FILE", help="YAML file that maps columns to fields, as for training.")
@click.option(
    "--declaration",
    type=PATH,
    metavar="FILE",
    help="Declaration of features with columns of type population; by default the one that comes with the code.",
)
@click.option("--out", required=True, metavar="URL", help="Directory or fsspec URL of the tables: population.dir.")
@click.option("--threads", type=click.IntRange(1), default=2, metavar="N", help="Number of processes.")
def command(clicks: Path, mapping: Path | None, declaration: Path | None, out: str, threads: int) -> None:
    """Make tables of what all users did from recorded clicks.

    jobs.publish_population goes on from the newest one. The tables of the last seven days are written.

    \b
    Examples:
      intent population --clicks archive/topic=clicks --out tables
      intent population --clicks events.csv --mapping mapping.yaml --declaration conf/features.yaml --out tables
    """
    declared = load_declaration(declaration, with_functions=False) if declaration else population()
    if not declared.layout.population_columns:
        raise ValueError(f"{declaration}: key columns: none is of type population, so there is nothing to count")
    store = TableStore(out)
    if there := store.boundaries():
        raise PopulationError(f"{out}: has the table of {iso_time(there[-1])} already: give an empty directory")
    boundaries, newest = [], None

    def publish(table: Table) -> None:
        nonlocal newest
        store.write(table)
        boundaries.append(table.boundary_ms)
        newest = table

    workspace = Path(mkdtemp(prefix="population-"))
    try:
        with progress_bar() as progress:
            mappings = load_mapping(mapping) if mapping else None
            preparation = Preparation(CONVERTED, declared, workers=threads)
            summary = make_tables(
                clicks, workspace / "spill", preparation, duration_ms(KEEP), publish, mappings, progress
            )
    finally:
        shutil.rmtree(workspace)
    if newest is None:
        every_ms = declared.layout.publication.every_ms
        raise PrepareError(f"{clicks}: no interval of {every_ms / 60_000:g} minutes is complete: use more clicks")
    print(
        f"{summary.accepted:,} of {summary.read:,} clicks counted; {counted(len(boundaries), 'table')} in {out}, "
        f"the newest of {iso_time(newest.boundary_ms)}"
    )
    for line in text(newest):
        print(line)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the tables; return the exit code."""
    return run(command, "python -m training.population", arguments)


if __name__ == "__main__":
    sys.exit(main())
