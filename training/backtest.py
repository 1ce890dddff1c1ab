"""Replay recorded clicks under models, a rule and a retraining schedule, and report what each would have earned.

    python -m training.backtest --clicks archive --from 2026-05-01T00:00:00Z --to 2026-05-15T00:00:00Z --models A B

Exit codes: 0, the report is written; 2, refused, one line says why.
"""

import sys
from collections.abc import Sequence
from typing import Any

import click
import msgspec

from training.backtesting.plan import AS_THE_RULE, Options, make_plan
from training.backtesting.report import JSON_FILE, PAGE_FILE, html, record, text
from training.backtesting.run import run_backtest
from training.data.progress_bar import progress_bar
from udfs.config.command_line import EXIT_USAGE, PATH, Command, Value, ValuesOption, run, set_option
from udfs.config.durations import Duration, read_moment


def _duration(text: str) -> str:
    try:
        return msgspec.convert(text, Duration)
    except msgspec.ValidationError:
        raise ValueError(f"expected a duration such as 30 min, 12 h or 7 d, got {text!r}") from None


def _threshold(text: str) -> tuple[str | None, float]:
    name, has_name, number = text.rpartition("=")
    try:
        threshold = float(number)
    except ValueError:
        threshold = float("nan")
    if not 0 <= threshold <= 1:
        raise ValueError(f"expected a score from 0 to 1, such as 0.2, or VERSION=SCORE, got {text!r}")
    return (name if has_name else None), threshold


def _share(text: str) -> str | float:
    if text == AS_THE_RULE:
        return text
    try:
        share = float(text)
    except ValueError:
        share = float("nan")
    if not 0 < share <= 1:
        raise ValueError(
            f"expected a share above 0 and at most 1, such as 0.05 for 5 %, or {AS_THE_RULE}, got {text!r}"
        )
    return share


@click.command(
    "backtest", cls=Command, at_most_one=("threshold", "act_on"), errors={ValueError: EXIT_USAGE, OSError: EXIT_USAGE}
)
@click.option(
    "--clicks",
    type=PATH,
    required=True,
    metavar="PATH",
    help="Clicks to replay, with those from before --from: an archive, a file or a directory of files.",
)
@click.option(
    "--profiles",
    type=PATH,
    metavar="PATH",
    help="Profiles of the users: an archive, or .jsonl files in which `updated_at` (ms) is the time of each profile.",
)
@click.option("--mapping", type=PATH, metavar="FILE", help="YAML file that maps columns to fields, as for training.")
@click.option(
    "--from",
    "from_ms",
    type=Value("time", read_moment),
    required=True,
    metavar="TIME",
    help="Begin of the replay: 2026-05-01T08:00:00Z or milliseconds since 1970. Earlier clicks are the users' history.",
)
@click.option(
    "--to",
    "to_ms",
    type=Value("time", read_moment),
    required=True,
    metavar="TIME",
    help="End of the replay, excluded. Events whose label is not known by then are left out and counted.",
)
@click.option(
    "--models",
    cls=ValuesOption,
    type=PATH,
    metavar="BUNDLE...",
    help="Bundles to replay; the others are compared with the first one.",
)
@click.option(
    "--rule",
    type=PATH,
    metavar="FILE",
    help="Rollout file whose rule is replayed too; by default the rule of --conf, if it has one.",
)
@click.option(
    "--retrain",
    type=Value("duration", _duration),
    metavar="EVERY",
    help="Also replay a retraining schedule, such as 7 d: at --from and after each interval, a model is trained with "
    "the settings on what was known then, and serves from then on.",
)
@click.option(
    "--label",
    metavar="LABEL",
    help="Outcome that counts, by default what the models predict: a name from the labels.yaml beside --conf, or "
    "`EVENT within DURATION`.",
)
@click.option(
    "--threshold",
    cls=ValuesOption,
    type=Value("threshold", _threshold),
    metavar="[VERSION=]SCORE...",
    help="Scores from which on models act, by default cost/benefit; a number alone is for all models.",
)
@click.option(
    "--act-on",
    type=Value("share", _share),
    metavar="SHARE|rule",
    help="Let each model act on this share of the events, those with the highest scores; `rule`: on the same share as "
    "the rule.",
)
@click.option(
    "--quiet",
    type=Value("duration", _duration),
    default="30 min",
    metavar="DURATION",
    help="Time after an action in which the user is not acted on again.",
)
@click.option(
    "--benefit",
    type=click.FloatRange(min=0, min_open=True),
    metavar="NUMBER",
    help="Value of acting on a user who converts; by default that of --conf.",
)
@click.option(
    "--cost",
    type=click.FloatRange(min=0),
    metavar="NUMBER",
    help="Cost of an action, in the same currency; by default that of --conf.",
)
@click.option(
    "--conf",
    type=PATH,
    metavar="FILE",
    help="Training settings, for example conf/training.yaml; by default the built-in ones.",
)
@set_option("bots=null")
@click.option("--out", type=PATH, required=True, metavar="DIR", help=f"Directory for {PAGE_FILE} and {JSON_FILE}.")
def command(**given: Any) -> None:
    """Report what models would have earned on recorded clicks.

    Clicks are replayed as if live: features, labels and trainings see only what was known at the time.

    \b
    Examples:
      intent backtest --clicks archive --from 2026-05-01T00:00:00Z --to 2026-05-15T00:00:00Z --models a b --out report
      intent backtest --clicks c.csv --from 2026-05-01T00:00:00Z --to 2026-05-15T00:00:00Z --retrain "7 d" --out report
    """
    options = Options(**given)
    plan = make_plan(options)
    with progress_bar() as step:
        result = run_backtest(options, plan, step, lambda line: print(f"backtest: {line}", file=sys.stderr))
    for line in result.warnings:
        print(f"backtest: {line}", file=sys.stderr)
    print(text(result))
    (options.out / PAGE_FILE).write_bytes(html(result))
    (options.out / JSON_FILE).write_bytes(record(result))
    print(f"\nwrote {options.out}/{PAGE_FILE} and {JSON_FILE}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay recorded clicks and report; return the exit code."""
    return run(command, "python -m training.backtest", arguments)


if __name__ == "__main__":
    sys.exit(main())
