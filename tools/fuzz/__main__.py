"""Fuzz a target: `python -m tools.fuzz --target clicks --inputs 100000 --seed 7`.

Crashes, as few bytes as they need, are written into build/fuzz/crashes, and the command that runs each again is
printed. Exit codes: 0, no input broke the contract; 1, one did; 2, the options can't be used.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click

from tools.fuzz.engine import check, fuzz_in_child
from tools.fuzz.targets import TARGETS, make_target
from udfs.config.command_line import EXIT_FAILED, EXIT_USAGE, PATH, Command, run


@click.command("fuzz", cls=Command, errors={OSError: EXIT_USAGE})
@click.option("--target", "name", type=click.Choice(list(TARGETS)), required=True, help="What to call.")
@click.option("--inputs", type=click.IntRange(1), default=100_000, help="Number of inputs.")
@click.option("--seed", type=int, default=1, help="Seed of the mutations.")
@click.option("--seconds", type=float, default=float("inf"), help="Stop after so many seconds.")
@click.option("--input", "path", type=PATH, help="Run only this input, and show what comes of it.")
def command(name: str, inputs: int, seed: int, seconds: float, path: Path | None) -> int:
    """Call a target with mutated inputs, and keep those that break its contract."""
    if path is not None:
        outcome, crash = check(make_target(name), path.read_bytes())
        print(outcome if crash is None else crash.details)
        return 0 if crash is None else EXIT_FAILED
    done, crashes = fuzz_in_child(name, make_target, inputs, seed, seconds, partial(print, flush=True))
    print(f"{name}: {done:,} inputs, {crashes} crashes")
    return EXIT_FAILED if crashes else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz a target; return the exit code."""
    return run(command, "python -m tools.fuzz", arguments)


if __name__ == "__main__":
    sys.exit(main())
