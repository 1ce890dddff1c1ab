"""List the features that models use, add own ones, measure and explain them: `python -m intent.features list`.

Exit codes: 0, done; 1, there is no such user or event, or Kafka does not answer; 2, refused: nothing has changed, and
one line on standard error says why.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from intent.features.additions import (
    declaration_with,
    feature_addition,
    kind_addition,
    read_or_start,
    write_addition,
)
from intent.features.errors import NoEventError
from intent.features.late_progress import late_progress
from intent.features.tables import feature_table
from udfs.config.command_line import EXIT_FAILED, EXIT_OK, EXIT_USAGE, PATH, Group, Value, run, set_option
from udfs.features.declaration import Declaration
from udfs.features.declaration_file import STANDARD, declaration_of, load_declaration
from udfs.kafka.errors import KafkaClientError

if TYPE_CHECKING:
    from udfs.models.bundle import Bundle

# The list comes at once: what takes a second to import, and the list does not need, is imported where it is used.

OWN_FILE = Path("conf", "features.yaml")
_CHECKED_EVENTS, _CHECKED_HISTORY = 500, 64


class _ListByDefault(Group):
    """The group, in which `list` can be left out."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        is_list = not args or args[0].startswith("-") and args[0] not in ctx.help_option_names
        return super().parse_args(ctx, ["list", *args] if is_list and not ctx.resilient_parsing else args)


@click.command(
    "features",
    cls=_ListByDefault,
    subcommand_metavar="[COMMAND] [ARGS]...",
    errors={KafkaClientError: EXIT_FAILED, NoEventError: EXIT_FAILED, ValueError: EXIT_USAGE, OSError: EXIT_USAGE},
)
def command() -> None:
    """List features, add own ones, measure and explain them.

    A declaration defines features by expressions; docs/features.md explains both. Without COMMAND, the standard
    features are listed.

    \b
    Examples:
      intent features | grep session
      intent features list --declaration conf/features.yaml
      intent features cost --bundle models/first
    """


def declaration_option(
    help: str = "Declaration of features; by default the standard one.", default: Path | None = None
) -> Callable[[Callable], Callable]:
    return click.option("--declaration", type=PATH, default=default, metavar="FILE", help=help)


def bundle_option(help: str) -> Callable[[Callable], Callable]:
    return click.option("--bundle", type=PATH, metavar="DIR", help=help)


def _one_line(text: str) -> str:
    """A text without line breaks, for a file in UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("expected a text in UTF-8") from None
    if not text.strip():
        raise ValueError("expected a text, got an empty one")
    return " ".join(text.split())


TEXT = Value("text", _one_line)


@command.command("list", at_most_one=("declaration", "bundle"))
@declaration_option()
@bundle_option("Bundle whose model's features are listed, in the order of its columns.")
@click.option("--group", metavar="GROUP", help="List only this group.")
@click.option("--expressions", is_flag=True, help="Also show the expression of each feature.")
def list_features(declaration: Path | None, bundle: Path | None, group: str | None, expressions: bool) -> None:
    """List features with group, unit and description.

    \b
    Examples:
      intent features list | grep session
      intent features list --declaration conf/features.yaml --group own --expressions
      intent features list --bundle models/first
    """
    declared, names, _ = _selected(declaration, bundle)
    chosen = [declared[name] for name in names]
    if group is not None:
        groups = dict.fromkeys(feature.group for feature in chosen)
        if group not in groups:
            raise ValueError(f"--group {group}: no such group; expected one of {', '.join(groups)}")
        chosen = [feature for feature in chosen if feature.group == group]
    _print(feature_table(chosen, expressions))


@command.command("add", exactly_one=("name", "kind"))
@click.argument(
    "name", required=False, type=TEXT, help="Name of the feature; with {window} in it, one for each window of the file."
)
@click.argument("expression", required=False, type=TEXT, help="Expression that defines it.")
@click.option("--unit", type=TEXT, metavar="UNIT", help="Unit of its values, such as events, s or ratio.")
@click.option("--doc", type=TEXT, metavar="TEXT", help="Description of the feature.")
@click.option("--group", type=TEXT, default="own", metavar="GROUP", help="Group of the feature; made if missing.")
@click.option("--kind", type=TEXT, metavar="NAME", help="Add this own kind of event instead of a feature.")
@declaration_option("Declaration to add to; made if missing.", OWN_FILE)
def add(declaration: Path, kind: str | None, group: str, **given: str | None) -> None:
    """Add a feature or a kind of event to a declaration.

    The file keeps its comments and its order. Nothing is written if the feature can't be used.

    \b
    Examples:
      intent features add views_2h "count(kind == view_item, over=2h)" --unit events --doc "views in the last 2 hours"
      intent features add --kind quiz_completed
      intent features add quizzes "count(kind == quiz_completed)" --unit events --doc "completed quizzes" --group quiz
    """
    if kind is not None:
        _refuse_with_kind(click.get_current_context())
        _print(_add_kind(declaration, kind))
    else:
        _require_all(click.get_current_context(), given)
        _print(_add_feature(declaration, group, **given))


def _refuse_with_kind(ctx: click.Context) -> None:
    """Refuse the options of features."""
    for param in ctx.command.params:
        is_given = ctx.get_parameter_source(param.name) is ParameterSource.COMMANDLINE
        if is_given and param.name in ("unit", "doc", "group"):
            raise click.UsageError(f"--kind and {param.opts[0]} can't be combined.", ctx)


def _require_all(ctx: click.Context, given: Mapping[str, str | None]) -> None:
    for param in ctx.command.params:
        if param.name in given and given[param.name] is None:
            shown = param.opts[0] if isinstance(param, click.Option) else param.name.upper()
            raise click.UsageError(f"Missing {param.param_type_name} '{shown}'.", ctx)


def _add_kind(path: Path, name: str) -> str:
    """Add a kind of event; returns what was done and what to do next."""
    from intent.features.next_steps import kind_text

    file = read_or_start(path)
    addition = kind_addition(file, str(path), name)
    declaration_with(file, str(path), addition)
    write_addition(path, addition)
    return kind_text(path, name, addition.value)


def _add_feature(path: Path, group: str, name: str, expression: str, unit: str, doc: str) -> str:
    """Add a feature; returns what was done, its cost and what to do next."""
    from intent.features.cost import measure
    from intent.features.next_steps import feature_text

    file = read_or_start(path)
    addition = feature_addition(file, str(path), group, name, {"value": expression, "unit": unit, "doc": doc})
    before, after = declaration_of(file), declaration_with(file, str(path), addition)
    added = [name for name in after.names if name not in before]
    with late_progress() as report:
        # Before the file is written: the code for a feature must compile.
        costs = measure(after, added, {"all": after.names}, report)
    write_addition(path, addition)
    return feature_text(path, before, after, costs)


@command.command("check")
@declaration_option("Declaration whose Python functions are checked.", OWN_FILE)
def check(declaration: Path) -> int:
    """Check a declaration, and compare its Python functions, compiled, with plain Python.

    Each function is computed for made-up events, as in training and in the job, and once more by Python itself.

    \b
    Examples:
      intent features check
      intent features check --declaration conf/features.yaml
    """
    declared = load_declaration(declaration)
    from intent.features.parity import check_functions

    with late_progress() as report:
        report("comparing functions", None, None)
        found = check_functions(declared, _CHECKED_EVENTS, _CHECKED_HISTORY)
    lines = [f"{declaration}: {len(declared.features)} features, {len(found)} of them Python functions"]
    for parity in found:
        equal = "equal" if parity.is_met else f"{parity.different} DIFFER, such as {parity.example}"
        lines.append(f"  {parity.name}: {parity.events} events, {parity.missing} without a value: {equal}")
    _print("\n".join(lines))
    return EXIT_OK if all(parity.is_met for parity in found) else EXIT_FAILED


@command.command("cost", at_most_one=("declaration", "bundle"))
@declaration_option()
@bundle_option("Bundle whose features are measured; also shows their importance in its model.")
@click.option(
    "--events", type=click.IntRange(1, 100_000), default=2_000, metavar="N", help="Number of events to measure with."
)
def cost(declaration: Path | None, bundle: Path | None, events: int) -> None:
    """Measure what each feature costs per event.

    The cost is measured on this machine, on made-up histories.

    \b
    Examples:
      intent features cost --declaration conf/features.yaml
      intent features cost --bundle models/first
    """
    from intent.features.cost import HISTORY_LENGTH, measure
    from intent.features.cost_text import cost_text

    declared, names, loaded = _selected(declaration, bundle)
    sets, shares, history_length = {f"all {len(declared.names)} features": declared.names}, None, HISTORY_LENGTH
    if loaded is not None:
        from intent.features.importance import importance_shares

        sets[f"the {len(names)} features of the model"] = names
        shares, history_length = importance_shares(loaded), loaded.manifest.history_length
    with late_progress() as report:
        costs = measure(declared, declared.names, sets, report, events, history_length)
    _print(cost_text(declared, costs, history_length, shares))
    if loaded is not None and shares is None:
        kind = "is remote" if loaded.manifest.is_remote else "reads a sequence of events"
        print(f"The model {kind}: the importance of its features is not known here.")


@command.command("explain", at_most_one=("declaration", "bundle"))
@click.argument("user", metavar="USER", help="Id of the user.")
@click.option("--clicks", type=PATH, metavar="PATH", help="Read an archive, a file or a directory of files of clicks.")
@click.option("--profiles", type=PATH, metavar="PATH", help="Archive or .jsonl files of profiles; requires --clicks.")
@click.option(
    "--mapping",
    type=PATH,
    metavar="FILE",
    help="YAML file that maps columns of the files to fields; requires --clicks.",
)
@click.option(
    "--conf",
    type=PATH,
    metavar="FILE",
    help="Settings of the jobs. Without --clicks, read the topics; with it, only use the settings.",
)
@set_option("clicks.duplicates_within=0s")
@click.option(
    "--at",
    metavar="TIME",
    help="Show the newest event that is not later than a time: ISO 8601, milliseconds, or a duration before now.",
)
@bundle_option("Bundle of the model whose features are shown and whose score is explained.")
@declaration_option("Declaration of features; by default that of the settings, or the standard one.")
@click.option("--json", "as_object", is_flag=True, help="Print a JSON object.")
def explain(user: str, at: str | None, as_object: bool, **sources: Any) -> None:
    """Show a user's features at an event, and explain a score.

    The values are those that the job has when the event arrives.

    \b
    Examples:
      intent features explain u1 --clicks archive/topic=clicks --profiles archive/topic=profiles --bundle models/first
      intent features explain u1 --conf conf/local.yaml --at 2026-05-01T12:00
      intent features explain u1 --clicks clicks.jsonl --declaration conf/features.yaml --json
    """
    _check_sources(click.get_current_context(), sources)
    from intent.features.lookup import Sources, look_up
    from intent.features.vector_text import as_json, as_text

    with late_progress() as report:
        vector = look_up(user, at, Sources(**sources), report)
    _print(as_json(vector) if as_object else as_text(vector))


def _check_sources(ctx: click.Context, sources: Mapping[str, Any]) -> None:
    if sources["clicks"] is None and sources["conf"] is None:
        raise click.UsageError("Either --clicks or --conf is required.", ctx)
    for name, other in (("profiles", "clicks"), ("mapping", "clicks"), ("overrides", "conf")):
        if sources[name] and sources[other] is None:
            option = "--set" if name == "overrides" else f"--{name}"
            raise click.UsageError(f"{option} requires --{other}.", ctx)


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # the reader has enough: `| head`; what is still buffered has nowhere to go
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _selected(declaration: Path | None, bundle: Path | None) -> "tuple[Declaration, Sequence[str], Bundle | None]":
    """The declaration, the names of its features that are asked for, and the bundle if there is one."""
    if bundle is None:
        declared = STANDARD if declaration is None else load_declaration(declaration)
        return declared, declared.names, None
    from udfs.models.bundle import load_bundle

    loaded = load_bundle(bundle, None)
    return loaded.declaration, loaded.manifest.features, loaded


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code."""
    return run(command, "python -m intent.features", arguments)


if __name__ == "__main__":
    sys.exit(main())
