"""The command `intent`, with a subcommand for each command of jobs, training and dashboard.

A subcommand's module is imported when the subcommand is used: `intent --help` and the completion of subcommands import
none of them. To add a subcommand, define `command` in its module (see `udfs.config.command_line`) and name it below.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem

from udfs.config.command_line import ENTRY_POINT, Group, run

#: Subcommands in the order of the help: the module that defines `command`, and the first sentence of its help.
SUBCOMMANDS = {
    "topics": ("jobs.ops.topics", "Create the Kafka topics that are missing."),
    "doctor": ("jobs.ops.doctor.__main__", "Check Kafka, model and cluster before you submit a job."),
    "replay": ("jobs.ops.replay.__main__", "Send recorded or simulated clicks to Kafka."),
    "peek": ("jobs.ops.peek.__main__", "Show records of the topics."),
    "requeue": ("jobs.ops.requeue.__main__", "Send dead letters back to their topics, once each."),
    "capacity": ("jobs.ops.capacity", "Estimate cores, memory and partitions for your load."),
    "dashboard": ("dashboard.__main__", "Serve the live dashboard."),
    "map": ("training.map", "Propose a mapping for a file of foreign clicks."),
    "check": ("training.check", "Check which recorded clicks will be accepted."),
    "population": ("training.population", "Make tables of what all users did from recorded clicks."),
    "simulate": ("training.simulate", "Write the clicks and profiles of a simulated shop to files."),
    "train": ("training.train", "Train a model on clicks and write it as a bundle."),
    "retrain": ("training.retrain", "Train a new model from the archive and enter it in shadow."),
    "remote-bundle": ("training.remote_bundle", "Make a bundle for a model that another process serves."),
    "sign": ("training.sign", "Sign bundles, so that jobs with trusted keys serve them."),
    "promote": ("training.promote", "Show and change which models serve."),
    "backtest": ("training.backtest", "Report what models would have earned on recorded clicks."),
    "experiment": ("training.experiment", "Plan and evaluate experiments."),
    "features": ("intent.features.__main__", "List features, add own ones, measure and explain them."),
}


class LazyGroup(Group):
    """A group that imports the module of a subcommand only when the subcommand is used."""

    def __init__(self, *args: Any, subcommands: Mapping[str, tuple[str, str]], **options: Any):
        super().__init__(*args, **options)
        self._subcommands = subcommands

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._subcommands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._subcommands:
            return None
        return import_module(self._subcommands[cmd_name][0]).command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            raise click.exceptions.NoSuchCommand(error.command_name, possibilities=self._subcommands, ctx=ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, short_help) for name, (_, short_help) in self._subcommands.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        named = [
            CompletionItem(name, help=short_help)
            for name, (_, short_help) in self._subcommands.items()
            if name.startswith(incomplete)
        ]
        return [*named, *click.Command.shell_complete(self, ctx, incomplete)]


@click.command(ENTRY_POINT, cls=LazyGroup, subcommands=SUBCOMMANDS)
def command() -> None:
    """Score clicks for purchase intent on Kafka and Flink: operate the jobs, train models and roll them out.

    \b
    Examples:
      intent topics --conf conf/local.yaml
      intent train --simulate --out models/first
      intent promote start --help

    `flink run` submits the jobs themselves. For completion in Bash, run eval "$(_INTENT_COMPLETE=bash_source intent)".
    """


def main(arguments: Sequence[str] | None = None, program: str = ENTRY_POINT) -> int:
    """Run a subcommand; return its exit code. `program` is what the user typed before the subcommand."""
    return run(command, program, arguments)
