"""Retrain from the archive, once or as long as it runs: `python -m training.retrain --conf conf/retraining.yaml`.

Exit code 0: the new model is in shadow. 1: an error broke it off, the next start goes on. 2: refused, one line says
why. 3: the model was trained and did not pass its gates.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from training.retraining.run import retrain
from training.retraining.scheduler import Watch
from training.retraining.settings import RETRAINING_FILE, load_recipe
from udfs.kafka.reading import read_topic

POLL_S = 60
EXIT_CODES = {"passed": 0, "failed": 3, "refused": 2}


def main(arguments: Sequence[str] | None = None) -> int:
    """Make a new model of the archive, compare it with the champion and enter it in shadow."""
    options = _parser().parse_args(arguments)
    try:
        schedule = [] if options.every is None else [f"every={options.every}"]
        recipe = load_recipe(options.conf, [*options.set, *schedule])
        if not options.watch and not schedule:
            run = retrain(recipe, "by hand", _say)
            print(f"run {run.run} {run.state}: {run.message}", file=sys.stdout if run.state == "passed" else sys.stderr)
            return EXIT_CODES.get(run.state, 1)
        watch = Watch(recipe, options.watch, retrain, read_topic, _say)
        while True:
            watch.look(datetime.now(UTC))
            time.sleep(POLL_S)
    except (ValueError, OSError) as error:
        print(f"retrain: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _say(line: str) -> None:
    print(line, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.retrain", description=main.__doc__)
    parser.add_argument("--conf", type=Path, default=RETRAINING_FILE, help="settings (default: conf/retraining.yaml)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="such as data.history=14d")
    parser.add_argument("--watch", action="store_true", help="start at drift alarms and when live quality falls")
    parser.add_argument("--every", metavar="DURATION", help="start on a schedule too, such as 1d")
    return parser


if __name__ == "__main__":
    sys.exit(main())
