"""Retrain from the archive, once or continuously: `python -m training.retrain --conf conf/retraining.yaml`.

Exit codes: 0, the new model is in shadow; 1, an error interrupted the run, and the next start resumes it; 2, refused,
one line says why; 3, the model was trained and failed its gates; 130, interrupted.
"""

import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import click

from training.retraining.run import retrain
from training.retraining.scheduler import Watch
from training.retraining.settings import RETRAINING_FILE, load_recipe
from udfs.config.command_line import EXIT_FAILED, EXIT_OK, EXIT_USAGE, Command, conf_option, run, set_option
from udfs.kafka.reading import read_topic

POLL_S = 60
EXIT_GATES = 3
EXIT_CODES = {"passed": EXIT_OK, "failed": EXIT_GATES, "refused": EXIT_USAGE}


@click.command("retrain", cls=Command, errors={ValueError: EXIT_USAGE, OSError: EXIT_USAGE})
@conf_option("Retraining settings.", default=RETRAINING_FILE)
@set_option("data.history=14d")
@click.option("--watch", is_flag=True, help="Keep running, and start a run on a drift alarm or falling live quality.")
@click.option("--every", metavar="DURATION", help="Keep running, and start a run on a schedule, such as 1d.")
def command(conf: Path, overrides: tuple[str, ...], watch: bool, every: str | None) -> int:
    """Train a new model from the archive and enter it in shadow.

    The model must pass its gates in a comparison with the champion. Without --watch and --every, starts one run.

    \b
    Examples:
      intent retrain --conf conf/retraining.yaml
      intent retrain --conf conf/retraining.yaml --watch --every 1d
    """
    schedule = [] if every is None else [f"every={every}"]
    recipe = load_recipe(conf, [*overrides, *schedule])
    if watch or schedule:
        return _watch(Watch(recipe, watch, retrain, read_topic, _log))
    result = retrain(recipe, "by hand", _log)
    stream = sys.stdout if result.state == "passed" else sys.stderr
    print(f"run {result.run} {result.state}: {result.message}", file=stream)
    return EXIT_CODES.get(result.state, EXIT_FAILED)


def _watch(watch: Watch) -> NoReturn:
    """Poll for triggers until interrupted."""
    while True:
        watch.look(datetime.now(UTC))
        time.sleep(POLL_S)


def _log(line: str) -> None:
    print(line, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Retrain; return the exit code."""
    return run(command, "python -m training.retrain", arguments)


if __name__ == "__main__":
    sys.exit(main())
