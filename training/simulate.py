"""Write the clicks and profiles of a simulated shop to files: `python -m training.simulate --out clicks`."""

import argparse
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from training.simulation.clickstream import Clickstream, Simulation, simulate
from training.simulation.malformed import with_broken


def main(arguments: list[str] | None = None) -> int:
    """Write clicks.jsonl, profiles.jsonl and propensity.jsonl into a directory."""
    defaults = Simulation()
    parser = argparse.ArgumentParser(prog="python -m training.simulate", description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory to write to; made when missing")
    parser.add_argument("--users", type=int, default=defaults.users)
    parser.add_argument("--hours", type=float, default=defaults.hours)
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--start", type=_utc_time, default=defaults.start, help="ISO 8601, UTC unless it says other")
    parser.add_argument("--visits-per-day", type=float, default=defaults.visits_per_day, help="of the average user")
    parser.add_argument("--bot-share", type=float, default=defaults.bot_share, help="of users")
    parser.add_argument("--profile-share", type=float, default=defaults.profile_share, help="of users but bots")
    parser.add_argument("--late-share", type=float, default=defaults.late_share, help="of events that arrive late")
    parser.add_argument("--shift-at", type=float, default=defaults.shift_at, help="hours until behaviour changes")
    parser.add_argument("--lift-at", type=float, default=defaults.lift_at, help="hours until some users buy more often")
    parser.add_argument("--lift-start", type=float, default=defaults.lift_start, help="who: from here in a rollout")
    parser.add_argument("--lift-end", type=float, default=defaults.lift_end, help="to here")
    parser.add_argument("--lift-salt", default=defaults.lift_salt, help="the rollout's salt")
    parser.add_argument("--broken-share", type=float, default=0.0, help="of records that break the contract")
    options = vars(parser.parse_args(arguments))
    out, broken_share = options.pop("out"), options.pop("broken_share")
    try:
        stream = simulate(Simulation(**options))
        _write(stream, broken_share, out)
    except (ValueError, OSError) as error:
        print(f"simulate: {error}", file=sys.stderr)
        return 2
    print(f"{len(stream)} events of {options['users']} users and {len(stream.profiles)} profile records in {out}")
    return 0


def _utc_time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


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


if __name__ == "__main__":
    sys.exit(main())
