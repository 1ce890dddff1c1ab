"""Write the clicks and profiles of a simulated shop to files: `python -m training.simulate --out clicks`."""

import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from training.simulation.clickstream import Clickstream, Simulation, simulate
from training.simulation.malformed import with_broken
from udfs.config.command_line import EXIT_USAGE, PATH, Command, Value, run


def _write(stream: Clickstream, broken_share: float, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    propensities = (
        {"event_id": click["event_id"], "propensity": propensity}
        for click, propensity in zip(stream.clicks(), stream.propensity.tolist())
    )
    _write_lines(
        out / "clicks.jsonl", (record for record, _ in with_broken(stream.clicks(), broken_share, stream.seed))
    )
    _write_lines(out / "propensity.jsonl", map(msgspec.json.encode, propensities))
    _write_lines(out / "profiles.jsonl", map(msgspec.json.encode, stream.profiles))


def _write_lines(path: Path, lines: Iterator[bytes]) -> None:
    with path.open("wb") as file:
        file.writelines(line + b"\n" for line in lines)


def _utc_time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"expected an ISO 8601 time such as 2026-01-05T08:00, got {text!r}") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


DEFAULTS = Simulation()


@click.command("simulate", cls=Command, errors={ValueError: EXIT_USAGE, OSError: EXIT_USAGE})
@click.option("--out", type=PATH, required=True, metavar="DIR", help="Directory to write to; created if missing.")
@click.option("--users", type=int, default=DEFAULTS.users, help="Number of users.")
@click.option("--hours", type=float, default=DEFAULTS.hours, help="Hours to simulate.")
@click.option("--seed", type=int, default=DEFAULTS.seed, help="Seed of the simulation; equal options give equal files.")
@click.option(
    "--start",
    type=Value("time", _utc_time),
    default=DEFAULTS.start.isoformat(),
    metavar="TIME",
    help="Time of the simulation's start in ISO 8601, in UTC unless it has an offset.",
)
@click.option(
    "--visits-per-day", type=float, default=DEFAULTS.visits_per_day, help="Visits per day of the average user."
)
@click.option("--bot-share", type=float, default=DEFAULTS.bot_share, help="Share of users that are bots.")
@click.option(
    "--profile-share", type=float, default=DEFAULTS.profile_share, help="Share of human users that have a profile."
)
@click.option("--late-share", type=float, default=DEFAULTS.late_share, help="Share of events that arrive late.")
@click.option(
    "--shift-at", type=float, default=DEFAULTS.shift_at, help="Hours until all users begin to behave as in a sale."
)
@click.option(
    "--lift-at", type=float, default=DEFAULTS.lift_at, help="Hours until the users of the lift begin to buy more often."
)
@click.option(
    "--lift-start",
    type=float,
    default=DEFAULTS.lift_start,
    help="Start of the lift: users from this position in the rollout's assignment on, from 0 to 1.",
)
@click.option("--lift-end", type=float, default=DEFAULTS.lift_end, help="End of the lift: users up to this position.")
@click.option("--lift-salt", default=DEFAULTS.lift_salt, help="Salt of the rollout whose assignment the lift follows.")
@click.option(
    "--lift-challenger-salt",
    metavar="SALT",
    help="The rollout's challenger_salt, if it has one; the lift then starts where control's region ends.",
)
@click.option("--broken-share", type=float, default=0.0, help="Share of records that break the contract.")
def command(out: Path, broken_share: float, **options: Any) -> None:
    """Write the clicks and profiles of a simulated shop to files.

    The files are clicks.jsonl, profiles.jsonl, and propensity.jsonl with the true purchase probability of each click.

    \b
    Examples:
      intent simulate --out clicks
      intent simulate --out clicks --users 10000 --hours 168 --seed 7 --broken-share 0.01
    """
    stream = simulate(Simulation(**options))
    _write(stream, broken_share, out)
    print(f"{len(stream)} events of {options['users']} users and {len(stream.profiles)} profile records in {out}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files; return the exit code."""
    return run(command, "python -m training.simulate", arguments)


if __name__ == "__main__":
    sys.exit(main())
