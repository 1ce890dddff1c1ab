"""Command lines: what all commands of this project have in common, on top of click.

A module with a command line defines a click command named `command`, and `main`:

    @click.command("topics", cls=Command, errors={ConfigError: EXIT_USAGE, KafkaClientError: EXIT_FAILED})
    @conf_option()
    @set_option("state.ttl=30d")
    def command(conf: Path, overrides: tuple[str, ...]) -> int | None:
        '''Create the topics that are missing.'''

    def main(arguments: Sequence[str] | None = None) -> int:
        return run(command, "python -m jobs.ops.topics", arguments)

`intent.cli` makes a subcommand of each such command. A command returns its exit code, or None for 0.
"""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from udfs.config.text import one_line

#: The name of the one entry point, `intent SUBCOMMAND`. Error messages begin with the subcommand alone.
ENTRY_POINT = "intent"

EXIT_OK = 0
EXIT_FAILED = 1  # something is missing, or does not answer
EXIT_USAGE = 2  # the command line or a file that it names can't be used, or the change is refused
EXIT_INTERRUPTED = 130  # Ctrl-C, as in shells

#: A file or directory; the shell completes it. Whether it exists is checked where it is opened.
PATH = click.Path(path_type=Path)

CONTEXT = {"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 100}


class _Reporting(click.Command):
    """A command whose expected errors become one line on standard error, `name: message`, and an exit code.

    `errors` maps each expected exception to its exit code. `interrupted` is the exit code after Ctrl-C.
    """

    def __init__(
        self,
        *args: Any,
        errors: Mapping[type[Exception], int] | None = None,
        interrupted: int = EXIT_INTERRUPTED,
        **options: Any,
    ):
        super().__init__(*args, context_settings=CONTEXT, **options)
        self._errors = dict(errors or {})
        self._interrupted = interrupted

    def get_help(self, ctx: click.Context) -> str:
        """The help, with examples that call the command as the user did, such as by `python -m`."""
        called = f"{ENTRY_POINT} {full_name(ctx)}".removesuffix(f" {ENTRY_POINT}")
        return re.sub(rf"^    {called}\b", f"    {ctx.command_path}", super().get_help(ctx), flags=re.MULTILINE)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            return self._interrupted
        except tuple(self._errors) as error:
            print_error(self.name, error)
            return next(code for kind, code in self._errors.items() if isinstance(error, kind))


class Command(_Reporting):
    """A command with rules on which parameters go together.

    Of the parameters named in `exactly_one`, one must be given. Of those in `at_most_one`, none or one may be given.
    """

    def __init__(self, *args: Any, exactly_one: Sequence[str] = (), at_most_one: Sequence[str] = (), **options: Any):
        super().__init__(*args, **options)
        self._exactly_one, self._at_most_one = exactly_one, at_most_one

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:
            self._refuse_missing_values(ctx, args)
        rest = super().parse_args(ctx, self._one_value_each(args))
        if not ctx.resilient_parsing:
            for names in (self._exactly_one, self._at_most_one):
                self._refuse_several(ctx, names)
            if self._exactly_one and not self._given(ctx, self._exactly_one):
                raise click.UsageError(f"Either {' or '.join(self._shown(self._exactly_one))} is required.", ctx)
        return rest

    def _refuse_missing_values(self, ctx: click.Context, args: Sequence[str]) -> None:
        """Refuse `--out --force`, which click would read as a value --force of --out."""
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        names = {name for option in options for name in option.opts}
        with_value = {name for option in options if not option.is_flag for name in option.opts}
        for option, value in pairwise(args):
            if option in with_value and value in names:
                raise click.BadOptionUsage(option, f"Option '{option}' requires an argument.", ctx)

    def _refuse_several(self, ctx: click.Context, names: Sequence[str]) -> None:
        given = self._given(ctx, names)
        if len(given) > 1:
            raise click.UsageError(f"{' and '.join(self._shown(given))} can't be combined.", ctx)

    @staticmethod
    def _given(ctx: click.Context, names: Sequence[str]) -> list[str]:
        return [name for name in names if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]

    def _shown(self, names: Sequence[str]) -> list[str]:
        """The parameters as the user writes them, such as --rate."""
        by_name = {param.name: param for param in self.params}
        return [
            param.opts[0] if isinstance(param, click.Option) else param.human_readable_name.strip("[].")
            for param in map(by_name.__getitem__, names)
        ]

    def _one_value_each(self, args: Sequence[str]) -> list[str]:
        """The arguments with the option repeated before each value of a `ValuesOption`."""
        several = {text for param in self.params if isinstance(param, ValuesOption) for text in param.opts}
        spread: list[str] = []
        repeated = None
        for position, text in enumerate(args):
            if text.startswith("-"):
                repeated = text if text in several else None
            elif repeated is not None and args[position - 1] != repeated:
                spread.append(repeated)
            spread.append(text)
        return spread


class Group(_Reporting, click.Group):
    """A command with subcommands; its `errors` are those of all of them."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The subcommands in the order of their definition, which is that of their use."""
        return list(self.commands)


class ValuesOption(click.Option):
    """An option that takes several values, after one `--option` or after several."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, multiple=True, **options)


class Value(click.ParamType):
    """A parameter type that a function parses; the message of its ValueError lists the accepted values."""

    def __init__(self, name: str, read: Callable[[str], Any]):
        self.name = name
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):  # a default
            return value
        try:
            return self._read(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def conf_option(
    help: str = "Settings file of the jobs, for example conf/local.yaml.", default: Path | None = None
) -> Callable[[Callable], Callable]:
    """The option --conf, which is required unless it has a default."""
    given = {"required": True} if default is None else {"default": default}
    return click.option("--conf", type=PATH, metavar="FILE", help=help, **given)


def set_option(example: str) -> Callable[[Callable], Callable]:
    """The option --set, which overrides single settings of the file; the command gets `overrides`."""
    return click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help=f"Override one setting of the file, for example {example}. Can be repeated.",
    )


def run(command: click.Command, program: str, arguments: Sequence[str] | None = None) -> int:
    """Run a command with the arguments, by default those of the process; return its exit code."""
    try:
        return command.main(arguments, prog_name=program, standalone_mode=False) or EXIT_OK
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return EXIT_USAGE
    except click.UsageError as error:
        print_error(*_usage(error))
        return EXIT_USAGE
    except click.Abort:
        return EXIT_INTERRUPTED


def print_error(name: str, problem: object) -> None:
    """Print a problem on standard error, in one line that begins with the name of the command."""
    print(f"{name}: {one_line(problem)}", file=sys.stderr)


def full_name(ctx: click.Context) -> str:
    """The names of the command and of the groups that it is in, such as "promote start"."""
    names = []
    context: click.Context | None = ctx
    while context is not None:
        names.append(context.command.name or "")
        context = context.parent
    return " ".join(reversed(names)).removeprefix(f"{ENTRY_POINT} ")


def _usage(error: click.UsageError) -> tuple[str, str]:
    """The name of the command whose arguments can't be used, and why."""
    message = error.format_message()
    if message[-1:] not in ".?)":
        message += "."
    return full_name(error.ctx), f"{message} Try `{error.ctx.command_path} --help`."
