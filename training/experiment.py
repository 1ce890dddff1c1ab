"""Plan an experiment, or report on one, from sessions in files or a topic.

    python -m training.experiment report --topic sessions --kafka bootstrap.servers=localhost:9092 --out report

Exit codes: 0, done; 2, refused, one line says why.
"""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import click
import msgspec
import pandas as pd

from training.experiments.comparison import compare, kpi_moments
from training.experiments.report import html, text
from training.experiments.sessions import read_sessions, read_topic_sessions
from udfs.config.command_line import EXIT_USAGE, PATH, Group, Value, ValuesOption, run
from udfs.config.durations import Moment, moment_ms
from udfs.kafka.properties import client_properties
from udfs.measurement.effects import measure_effect, users_needed
from udfs.measurement.kpis import KPIS_FILE, load_kpis


def _moment(text: str) -> int:
    try:
        return moment_ms(msgspec.convert(text, Moment, strict=False))
    except msgspec.ValidationError:
        raise ValueError(f"expected 2026-05-01T08:00:00Z or milliseconds since 1970, got {text}") from None


def _share(text: str) -> tuple[str, float]:
    arm, _, share = text.partition("=")
    try:
        return arm, float(share)
    except ValueError:
        raise ValueError(f"expected ARM=SHARE, for example challenger=0.05, got {text}") from None


@click.command("experiment", cls=Group, errors={ValueError: EXIT_USAGE, OSError: EXIT_USAGE})
def command() -> None:
    """Plan an experiment, or report on one.

    Both need recorded sessions, from files or from the topic.

    \b
    Examples:
      intent experiment plan --sessions sessions/ --effect 0.05
      intent experiment report --sessions sessions/ --out build/experiment
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
            help="File or directory with records of topic sessions: .jsonl, .parquet.",
        ),
    ):
        function = option(function)
    return function


@command.command("plan", exactly_one=("sessions", "topic"))
@session_options
@click.option("--kpi", default="conversion_rate", metavar="NAME", help="KPI that the effect is measured by.")
@click.option("--effect", type=float, required=True, help="Effect to detect, relative to the KPI: 0.05 for 5 % more.")
@click.option("--power", type=float, default=0.8, help="Probability of detecting the effect if it exists.")
@click.option("--share", type=float, default=0.5, help="Share of the experiment's users that get the treatment.")
@click.option("--traffic", type=float, default=1.0, help="Share of all users that are in the experiment.")
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
) -> None:
    """Estimate how many users and days it takes to detect an effect.

    \b
    Examples:
      intent experiment plan --sessions sessions/ --kpi conversion_rate --effect 0.05 --traffic 0.5
      intent experiment plan --topic sessions --kafka bootstrap.servers=kafka:9092 --effect 0.1
    """
    rows, known = _read(sessions, topic, kafka), load_kpis(kpis)
    if kpi not in known:
        raise ValueError(f"--kpi {kpi}: expected one of {', '.join(known)}")
    users = pd.Index(rows["user_id"].unique())
    moments = kpi_moments(known[kpi], rows, rows[:0], users)
    same = measure_effect(moments, moments)
    variance = same.variance / 2 * len(users)
    days = (rows["ended_at"].max() - rows["started_at"].min()) / 86_400_000
    print(f"{kpi} is {same.baseline:.4f} for {len(users)} users in {days:.1f} days")
    for look, sequential in (("looking at any time", True), ("looking once, at the end", False)):
        needed = users_needed(effect * same.baseline, variance, share, power, sequential=sequential)
        print(
            f"detecting a change of {effect:+.1%} with a power of {power:.0%}, {look}, takes {needed} users: "
            f"{needed / (len(users) / days * traffic):.1f} days at {len(users) / days:.0f} new users per day, "
            f"{traffic:.0%} of them in the experiment"
        )


@command.command("report", exactly_one=("sessions", "topic"))
@session_options
@click.option("--treatment", default="challenger", metavar="ARM", help="Arm to evaluate.")
@click.option(
    "--baseline",
    default="champion",
    metavar="ARM",
    help="Arm to compare with; with control, the report shows the value of the models.",
)
@click.option(
    "--start",
    type=Value("time", _moment),
    metavar="TIME",
    help="Start of the experiment: 2026-05-01T08:00:00Z or milliseconds since 1970. Earlier sessions are the users' "
    "history, which narrows the confidence intervals.",
)
@click.option(
    "--shares",
    cls=ValuesOption,
    type=Value("share", _share),
    metavar="ARM=SHARE...",
    help="Share of users that each arm should have, such as challenger=0.5 champion=0.45.",
)
@click.option("--out", type=PATH, metavar="DIR", help="Directory for report.html and report.json.")
def report(
    sessions: Path | None,
    topic: str | None,
    kafka: tuple[str, ...],
    kpis: Path,
    treatment: str,
    baseline: str,
    start: int | None,
    shares: tuple[tuple[str, float], ...],
    out: Path | None,
) -> None:
    """Compare two arms of an experiment.

    \b
    Examples:
      intent experiment report --sessions sessions/ --shares challenger=0.5 champion=0.5 --out build/experiment
      intent experiment report --sessions sessions/ --treatment champion --baseline control
      intent experiment report --topic sessions --kafka bootstrap.servers=kafka:9092
    """
    rows = _read(sessions, topic, kafka)
    comparison = compare(rows, load_kpis(kpis), treatment, baseline, start, dict(shares) or None)
    print(text(comparison))
    if out:
        out.mkdir(parents=True, exist_ok=True)
        (out / "report.html").write_bytes(html(comparison))
        (out / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(asdict(comparison))) + b"\n")
        print(f"\nwrote {out}/report.html and report.json")


def _read(sessions: Path | None, topic: str | None, kafka: Sequence[str]) -> pd.DataFrame:
    """The session records of a file, a directory or a topic."""
    if topic is None:
        return read_sessions(sessions)
    return read_topic_sessions(client_properties(kafka, os.environ), topic)


def main(arguments: Sequence[str] | None = None) -> int:
    """Plan an experiment or report on one; return the exit code."""
    return run(command, "python -m training.experiment", arguments)


if __name__ == "__main__":
    sys.exit(main())
