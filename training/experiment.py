"""Plan an experiment, or report on one, from sessions in files or a topic.

    python -m training.experiment report --topic sessions --registry models/registry --out report

Exit codes: 0, done; 2, refused, one line says why.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import msgspec
import pandas as pd

from training.experiments import off_policy
from training.experiments.comparison import compare
from training.experiments.planning import kpi_data, step_lines
from training.experiments.profiles import read_countries
from training.experiments.report import html, record, text
from training.experiments.segments import by_segment, countries, devices, visit_history
from training.experiments.sessions import read_sessions, read_topic_sessions
from training.experiments.stated import check_arms, stated_experiment
from training.experiments.wording import range_text
from udfs.config.command_line import EXIT_USAGE, PATH, Group, Value, ValuesOption, run
from udfs.config.durations import read_moment
from udfs.kafka.properties import client_properties
from udfs.measurement.design import Experiment, ExperimentArm
from udfs.measurement.effects import LEAST_USERS
from udfs.measurement.kpis import KPIS_FILE, load_kpis
from udfs.measurement.power import users_needed
from udfs.rollout.experiments import find_experiment, read_entries
from udfs.rollout.plan import Rollout, load_rollout
from udfs.rollout.registry import Registry

#: The arms that can be compared.
ARMS = ("challenger", "champion", "control")
#: The names of the attributes that users can be split by, by the values of --segments.
SEGMENTS = {"device": "device", "new": "visit history", "country": "country"}
#: The rollout file whose steps are planned unless another one is named.
ROLLOUT_FILE = Path("conf", "rollout.yaml")
DAY_MS = 86_400_000


def _arm_share(text: str) -> tuple[str, float]:
    arm, _, share = text.partition("=")
    if arm not in ARMS:
        raise ValueError(f"expected ARM=SHARE with an arm of {', '.join(ARMS)}, got {text}")
    try:
        return arm, _up_to_one(share)
    except ValueError as error:
        raise ValueError(f"{arm}: {error}") from None


def _policy_share(text: str) -> tuple[str, float]:
    version, has_share, share = text.partition("=")
    if not version:
        raise ValueError(f"expected VERSION=SHARE, or VERSION for all users, got {text}")
    try:
        return version, _up_to_one(share) if has_share else 1.0
    except ValueError as error:
        raise ValueError(f"{version}: {error}") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"expected a number such as 0.5, got {text!r}") from None


def _up_to_one(text: str) -> float:
    number = _number(text)
    if not 0 < number <= 1:
        raise ValueError(f"expected a share above 0 and at most 1, such as 0.5 for 50 %, got {text}")
    return number


def _below_one(text: str) -> float:
    number = _number(text)
    if not 0 < number < 1:
        raise ValueError(f"expected a number above 0 and below 1, such as 0.5 for 50 %, got {text}")
    return number


def _change(text: str) -> float:
    number = _number(text)
    if number == 0 or not -1 < number < float("inf"):
        raise ValueError(f"expected a number above -1 other than 0, such as 0.05 for 5 % more, got {text}")
    return number


@click.command("experiment", cls=Group, errors={ValueError: EXIT_USAGE, OSError: EXIT_USAGE})
def command() -> None:
    """Plan and evaluate experiments.

    All need recorded sessions, from files or from the topic.

    \b
    Examples:
      intent experiment plan --sessions sessions/ --effect 0.05
      intent experiment report --sessions sessions/ --registry models/registry --out build/experiment
    """


def session_options(function: Callable) -> Callable:
    """The options for the sources of sessions and KPIs."""
    for option in (
        click.option(
            "--kpis", type=PATH, metavar="FILE", default=Path("conf", KPIS_FILE), help="File that defines the KPIs."
        ),
        click.option(
            "--kafka",
            cls=ValuesOption,
            metavar="KEY=VALUE...",
            help="Client properties for --topic, such as bootstrap.servers=localhost:9092. Pass secrets through the "
            "environment: sasl.jaas.config='${NAME}'.",
        ),
        click.option("--topic", metavar="NAME", help="Kafka topic to read sessions from, instead of --sessions."),
        click.option(
            "--sessions",
            type=PATH,
            metavar="PATH",
            help="File or directory with records of topic sessions: .jsonl, .jsonl.gz, .parquet.",
        ),
    ):
        function = option(function)
    return function


@command.command("plan", exactly_one=("sessions", "topic"))
@session_options
@click.option("--kpi", default="conversion_rate", metavar="NAME", help="KPI that the effect is measured by.")
@click.option(
    "--effect",
    type=Value("number", _change),
    required=True,
    help="Effect to detect, relative to the KPI: 0.05 for 5 % more.",
)
@click.option(
    "--power", type=Value("number", _below_one), default=0.8, help="Probability of detecting the effect if it exists."
)
@click.option(
    "--share",
    type=Value("share", _below_one),
    default=0.5,
    help="Share of the experiment's users that get the treatment.",
)
@click.option(
    "--traffic", type=Value("share", _up_to_one), default=1.0, help="Share of all users that are in the experiment."
)
@click.option(
    "--rollout",
    type=PATH,
    metavar="FILE",
    help=f"Rollout file whose steps are planned too; by default {ROLLOUT_FILE}, if there is one.",
)
def plan(
    sessions: Path | None,
    topic: str | None,
    kafka: tuple[str, ...],
    kpis: Path,
    kpi: str,
    effect: float,
    power: float,
    share: float,
    traffic: float,
    rollout: Path | None,
) -> None:
    """Estimate how many users and days it takes to detect an effect, and to pass the steps of a rollout.

    \b
    Examples:
      intent experiment plan --sessions sessions/ --kpi conversion_rate --effect 0.05 --traffic 0.5
      intent experiment plan --topic sessions --kafka bootstrap.servers=kafka:9092 --effect 0.1
    """
    known = load_kpis(kpis)
    if kpi not in known:
        raise ValueError(f"--kpi {kpi}: expected one of {', '.join(known)}")
    if rollout is None and ROLLOUT_FILE.exists():
        rollout = ROLLOUT_FILE
    steps = None if rollout is None else _steps(rollout)
    rows = _people(_read(sessions, topic, kafka))
    users, days = _users_and_days(rows)
    data = kpi_data(rows, known)
    if data[kpi].no_data:
        raise ValueError(f"--kpi {kpi}: {data[kpi].no_data}")
    tested = sum(one.no_data is None for one in data.values())
    needed = users_needed(effect, data[kpi].relative_variance, share, power, tested)
    per_day = users / days
    print(
        f"{kpi} is {data[kpi].value:.4f} for {users:,} users in {days:.1f} days\n"
        f"detecting a change of {effect:+.1%} with a power of {power:.0%}, as one of {tested} KPIs, takes {needed:,} "
        f"users of both arms: {needed / (per_day * traffic):,.1f} days at {per_day:,.0f} new users per day, "
        f"{traffic:.0%} of them in the experiment"
    )
    lines = list(step_lines(steps, known, data, per_day, power)) if steps else []
    if lines:
        print(f"\nuntil a harmless challenger passes the steps of {rollout} with a power of {power:.0%}:")
        print("\n".join(lines))


@dataclass(frozen=True)
class Design:
    """The options that say what is compared with what."""

    treatment: str
    baseline: str
    registry: str | None
    version: str | None
    baseline_version: str | None
    start: int | None
    shares: Mapping[str, float]

    def check(self) -> None:
        """Raises ValueError for options that contradict each other, or that are missing."""
        if self.treatment == self.baseline:
            raise ValueError(f"arm {self.treatment} cannot be compared with itself: choose two arms")
        stated = {"--start": self.start, "--shares": self.shares or None, "--baseline-version": self.baseline_version}
        given = [option for option, value in stated.items() if value is not None]
        if self.registry is not None and given:
            raise ValueError(f"--registry and {given[0]} can't be combined: the registry's ledger has it")
        missing = [option for option in ("--start", "--shares") if option not in given]
        if self.registry is None and missing:
            raise ValueError(
                "which sessions are of the experiment, and how many users each arm should have, is unknown: give "
                "--registry URI, whose ledger has both, or, for sessions of a replay, --start TIME and --shares "
                f"ARM=SHARE... ({' and '.join(missing)} missing)"
            )


@command.command("report", exactly_one=("sessions", "topic"))
@session_options
@click.option(
    "--registry", metavar="URI", help="Registry whose ledger has the experiment: its start, shares and models."
)
@click.option("--treatment", type=click.Choice(ARMS), default="challenger", metavar="ARM", help="Arm to evaluate.")
@click.option(
    "--baseline",
    type=click.Choice(ARMS),
    default="champion",
    metavar="ARM",
    help="Arm to compare with; with control, the report shows the value of the models.",
)
@click.option(
    "--version",
    metavar="VERSION",
    help="Model of the treatment; by default that of the experiment that the ledger changed last.",
)
@click.option("--baseline-version", metavar="VERSION", help="Model of the baseline, with --start and --shares.")
@click.option(
    "--start",
    type=Value("time", read_moment),
    metavar="TIME",
    help="Start of the experiment, instead of --registry: 2026-05-01T08:00:00Z or milliseconds since 1970. Earlier "
    "sessions are the users' history, which narrows the confidence intervals.",
)
@click.option(
    "--shares",
    cls=ValuesOption,
    type=Value("share", _arm_share),
    metavar="ARM=SHARE...",
    help="Share of users that each arm should have, with --start, such as challenger=0.5 champion=0.45.",
)
@click.option(
    "--segments",
    cls=ValuesOption,
    type=click.Choice([*SEGMENTS]),
    metavar="NAME...",
    help="Show the effects by segment too: by device, by new and returning users (new), by country. Segments never "
    "change the decision.",
)
@click.option(
    "--profiles",
    type=PATH,
    metavar="PATH",
    help="Profiles of the users, for --segments country: an archive, or .jsonl files in which `updated_at` (ms) is the "
    "time of each profile.",
)
@click.option("--out", type=PATH, metavar="DIR", help="Directory for report.html and report.json.")
def report(
    sessions: Path | None,
    topic: str | None,
    kafka: tuple[str, ...],
    kpis: Path,
    out: Path | None,
    shares: tuple[tuple[str, float], ...],
    segments: tuple[str, ...],
    profiles: Path | None,
    **design: Any,
) -> None:
    """Compare two arms of an experiment: one version with one other.

    \b
    Examples:
      intent experiment report --sessions sessions/ --registry models/registry --out build/experiment
      intent experiment report --sessions sessions/ --registry models/registry --treatment champion --baseline control
      intent experiment report --sessions sessions/ --start 2026-05-01T08:00:00Z --shares challenger=0.5 champion=0.45
      intent experiment report --topic sessions --kafka bootstrap.servers=kafka:9092 --registry s3://bucket/models
      intent experiment report --sessions sessions/ --registry models/registry --segments device new
    """
    chosen = Design(**design, shares=_each_once(shares))
    chosen.check()
    if ("country" in segments) != (profiles is not None):
        raise ValueError("--segments country and --profiles PATH need each other: give both, or none")
    known = load_kpis(kpis)
    experiment = None
    if chosen.registry is not None:
        entries = read_entries(Registry(chosen.registry))
        experiment = find_experiment(entries, chosen.treatment, chosen.baseline, chosen.version)
    rows = _read(sessions, topic, kafka)
    if experiment is None:
        experiment = _stated(rows, chosen)
    check_arms(rows, experiment)
    comparison = compare(rows, known, experiment)
    segmentations = by_segment(rows, comparison, _attributes(segments, profiles, rows, experiment))
    print(text(comparison, segmentations))
    if out:
        out.mkdir(parents=True, exist_ok=True)
        (out / "report.html").write_bytes(html(comparison, segmentations))
        named = msgspec.json.encode(record(comparison, segmentations))
        (out / "report.json").write_bytes(msgspec.json.format(named) + b"\n")
        print(f"\nwrote {out}/report.html and report.json")


@command.command("value", exactly_one=("sessions", "topic"))
@session_options
@click.option("--kpi", default="conversion_rate", metavar="NAME", help="KPI to estimate.")
@click.option(
    "--policy",
    cls=ValuesOption,
    type=Value("share", _policy_share),
    required=True,
    metavar="VERSION=SHARE...",
    help="Versions that decide, and their shares of the users, which add up to 1; VERSION alone decides for all.",
)
@click.option(
    "--start",
    type=Value("time", read_moment),
    metavar="TIME",
    help="Leave out sessions before this time: 2026-05-01T08:00:00Z or milliseconds since 1970.",
)
def value(
    sessions: Path | None,
    topic: str | None,
    kafka: tuple[str, ...],
    kpis: Path,
    kpi: str,
    policy: tuple[tuple[str, float], ...],
    start: int | None,
) -> None:
    """Estimate what a KPI would have been had other versions decided, or with other shares.

    The estimate weighs the sessions of versions that acted at the same time by the propensities in their records.

    \b
    Examples:
      intent experiment value --sessions sessions/ --policy v2
      intent experiment value --sessions sessions/ --policy v2=0.7 v3=0.3 --kpi revenue_per_session
      intent experiment value --topic sessions --kafka bootstrap.servers=kafka:9092 --policy v2
    """
    known = load_kpis(kpis)
    if kpi not in known:
        raise ValueError(f"--kpi {kpi}: expected one of {', '.join(known)}")
    shares = _whole_policy(policy)
    found = off_policy.estimate(_read(sessions, topic, kafka), kpi, known[kpi], shares, start)
    print("\n".join(off_policy.lines(found, kpi, shares)))


def _whole_policy(policy: Sequence[tuple[str, float]]) -> dict[str, float]:
    shares = dict(policy)
    if len(shares) < len(policy):
        raise ValueError("--policy: a version is given twice")
    total = sum(shares.values())
    if abs(total - 1) > 1e-9:
        raise ValueError(f"--policy: the shares must add up to 1, got {total:g}")
    return shares


def _attributes(
    segments: Sequence[str], profiles: Path | None, rows: pd.DataFrame, experiment: Experiment
) -> dict[str, pd.Series]:
    """The attributes to split users by, each by user."""
    readers = {
        "device": lambda: devices(rows, experiment),
        "new": lambda: visit_history(rows, experiment),
        "country": lambda: countries(read_countries(profiles), rows, experiment),
    }
    return {name: readers[given]() for given, name in SEGMENTS.items() if given in segments}


def _stated(rows: pd.DataFrame, chosen: Design) -> Experiment:
    treatment = ExperimentArm(chosen.treatment, chosen.version)
    baseline = ExperimentArm(chosen.baseline, chosen.baseline_version)
    return stated_experiment(rows, treatment, baseline, chosen.start, chosen.shares)


def _each_once(shares: Sequence[tuple[str, float]]) -> dict[str, float]:
    arms = [arm for arm, _ in shares]
    twice = [arm for arm in ARMS if arms.count(arm) > 1]
    if twice:
        raise ValueError(f"--shares: {twice[0]} is given twice")
    return dict(shares)


def _steps(file: Path) -> Rollout:
    """The steps and the control group of a rollout file; which models it names does not matter."""
    return load_rollout(file, Rollout(salt="any", champion="any"))


def _people(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[~rows["is_bot"].to_numpy(bool)]


def _users_and_days(rows: pd.DataFrame) -> tuple[int, float]:
    """The number of users, and the time that their sessions span, in days."""
    users = rows["user_id"].nunique()
    if users < LEAST_USERS:
        raise ValueError(f"the sessions are of {users} users, and a plan needs {LEAST_USERS}: give more sessions")
    days = (rows["started_at"].max() - rows["started_at"].min()) / DAY_MS
    if days <= 0:
        raise ValueError(f"all sessions began at the same time, {range_text(rows)}: give those of several days")
    return users, days


def _read(sessions: Path | None, topic: str | None, kafka: Sequence[str]) -> pd.DataFrame:
    """The session records of a file, a directory or a topic."""
    if topic is None:
        rows = read_sessions(sessions)
    else:
        rows = read_topic_sessions(client_properties(kafka, os.environ), topic)
    if rows.empty:
        raise ValueError(f"{topic or sessions}: no sessions in it: measure_sessions writes them when they close")
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Plan an experiment or report on one; return the exit code."""
    return run(command, "python -m training.experiment", arguments)


if __name__ == "__main__":
    sys.exit(main())
