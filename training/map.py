"""Propose a mapping for a file of foreign clicks: `python -m training.map events.csv --out mapping.yaml`.

Exit codes: 0, the proposal is complete and rows fit it; 1, a required field is missing, or no row fits; 2, the file
can't be read, or the mapping can't be written.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import msgspec
import yaml

from training.data.decoded import UP_TO_NOW
from training.data.rows import Row, SourceError
from training.data.sources import DAY_MS
from training.inspection.file_sample import sample, stem_of
from training.inspection.proposal import Proposal, propose
from training.inspection.value_formats import plain, shown
from udfs.config.command_line import EXIT_FAILED, EXIT_OK, EXIT_USAGE, PATH, Command, run
from udfs.config.durations import now_ms
from udfs.contracts.clicks import ClickDecoder
from udfs.mapping.adapter import ClickAdapter, RowError
from udfs.mapping.definition import mapping_of

EXAMPLES_SHOWN = 3
EVENTS_SHOWN = 20
EMPTY_SHOWN = 10
WIDTH = 120


class _Dumper(yaml.SafeDumper):
    """Writes lists in one line, as in conf/mappings."""


_Dumper.add_representer(
    list, lambda dumper, value: dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=True)
)
_Dumper.add_representer(  # some characters that can't be printed are lost without quotes
    str,
    lambda dumper, value: dumper.represent_scalar(
        "tag:yaml.org,2002:str", value, style=None if value.isprintable() else '"'
    ),
)


def text_of(proposal: Proposal, source: Path, rows: int) -> str:
    """The mapping as YAML, with comments on what is not in it."""
    lines = [
        f"# Proposed by `intent map` from the first {f'{rows:,} rows' if rows > 1 else 'row'} of {plain(source.name)}: "
        "check each line.",
        "# conf/mappings/example.yaml explains the keys.",
        *(f"# columns.{field}: not found" for field in proposal.not_found),
    ]
    body = yaml.dump(proposal.mapping, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=WIDTH)
    return "\n".join([*lines, body.rstrip("\n"), *_comments(proposal)]) + "\n"


def _comments(proposal: Proposal) -> Iterator[str]:
    filled = {column: value for column, value in proposal.unused.items() if value is not None}
    if filled:
        yield "# Columns that are not used, with a value:"
        yield from (f"#   {plain(column)}: {shown(value)}" for column, value in filled.items())
    empty = [plain(column) for column in proposal.unused if column not in filled]
    if empty:
        more = f" and {len(empty) - EMPTY_SHOWN:,} more" if len(empty) > EMPTY_SHOWN else ""
        yield f"# Columns without a value in these rows: {', '.join(empty[:EMPTY_SHOWN])}{more}"
    if proposal.other_events:
        yield "# Events that GA4 has no name for and that count as `other`, with their rows:"
        names = list(proposal.other_events.items())
        for name, count in names[:EVENTS_SHOWN]:
            yield f"#   {plain(name)}: {count:,}"
        if len(names) > EVENTS_SHOWN:
            yield f"#   and {len(names) - EVENTS_SHOWN:,} more"


def _fit(proposal: Proposal, rows: Sequence[Row]) -> tuple[int, list[str]]:
    """The number of rows that fit, and why each of the others does not. Rows that are left out count as neither."""
    adapter = ClickAdapter(mapping_of(proposal.mapping, "the proposal"), now_ms() + DAY_MS)
    decoder = ClickDecoder(UP_TO_NOW)
    fit, problems = 0, []
    for number, row in enumerate(rows, 1):
        try:
            record = adapter.adapt(row.values, number) if row.problem is None else None
            if record is not None:
                problem = decoder.decode([msgspec.json.encode(record)], [now_ms()]).messages[0]
                fit += problem is None
            else:
                problem = row.problem
        except RowError as error:
            problem = str(error)
        except UnicodeEncodeError:
            problem = "a text is not UTF-8: set file.encoding"
        if problem is not None:
            problems.append(f"row {number:,}: {problem}")
    return fit, problems


def _report(proposal: Proposal, rows: Sequence[Row]) -> tuple[bool, list[str]]:
    """Whether the mapping can be used as it is, and what a person has to look at."""
    lines = [f"! columns.{field}: not found; {advice}" for field, advice in proposal.not_found.items()]
    lines += [f"! {doubt}" for doubt in proposal.doubts]
    if not proposal.is_complete:
        return False, lines
    fit, problems = _fit(proposal, rows)
    left_out = len(rows) - fit - len(problems)
    counts = [f"{fit:,} of {len(rows):,} rows fit"]
    counts += [f"{count:,} {what}" for count, what in ((len(problems), "unfit"), (left_out, "left out")) if count]
    lines.append(", ".join(counts))
    lines += _examples(problems)
    return bool(fit), lines


def _examples(problems: Sequence[str]) -> list[str]:
    """The first of the problems, and how many others are like each."""
    alike: dict[str, list[str]] = {}
    for problem in problems:
        alike.setdefault(re.sub(r"'[^']*'|\d[\d,]*", "", problem), []).append(problem)
    return [
        f"  {plain(first)}" + (f" (and {len(others):,} more like it)" if others else "")
        for first, *others in list(alike.values())[:EXAMPLES_SHOWN]
    ]


@click.command("map", cls=Command, errors=dict.fromkeys((SourceError, OSError), EXIT_USAGE))
@click.argument(
    "data",
    type=PATH,
    metavar="FILE",
    help="A file of clicks: CSV with any delimiter, JSON Lines, JSON, Parquet or Avro, .gz and .zst too.",
)
@click.option("--out", type=PATH, metavar="FILE", help="Write the mapping to this file instead of the screen.")
@click.option("--force", is_flag=True, help="Overwrite the file.")
def command(data: Path, out: Path | None, force: bool) -> int:
    """Propose a mapping for a file of foreign clicks.

    Reads its first rows, and judges columns by names and values. Needs no broker.

    \b
    Examples:
      intent map events.csv.gz
      intent map export.jsonl --out mapping.yaml
    """
    if out is not None and out.exists() and not force:
        raise FileExistsError(f"{out} exists: pass --force to overwrite it")
    found = sample(data)
    proposal = propose(found.readable, stem_of(data), found.layout)
    text = text_of(proposal, data, len(found.rows))
    if out is None:
        print(text, end="")
    else:
        out.write_text(text, encoding="utf-8")
    usable, lines = _report(proposal, found.rows)
    first = "write it with --out mapping.yaml and edit it" if out is None else f"edit {out}"
    lines.append(f"next: {first}, then `intent check {data} --mapping {out or 'mapping.yaml'}`")
    print("\n".join(lines), file=sys.stderr)
    return EXIT_OK if usable else EXIT_FAILED


def main(arguments: Sequence[str] | None = None) -> int:
    """Print or write the proposal; return the exit code."""
    return run(command, "python -m training.map", arguments)


if __name__ == "__main__":
    sys.exit(main())
