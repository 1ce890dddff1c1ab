"""Report on an experiment, or plan one, from sessions in a file or a topic.

    python -m training.experiment report --topic sessions --kafka bootstrap.servers=localhost:9092 --out report

Exit code 2: refused; one line says why.
"""

import argparse
import os
import sys
from dataclasses import asdict
from pathlib import Path

import msgspec
import pandas as pd

from training.experiments.comparison import compare, kpi_moments
from training.experiments.report import html, text
from training.experiments.sessions import read_sessions, read_topic_sessions
from udfs.config.durations import Moment, moment_ms
from udfs.kafka.properties import client_properties
from udfs.measurement.effects import measure_effect, users_needed
from udfs.measurement.kpis import KPIS_FILE, load_kpis


def _report(options: argparse.Namespace) -> None:
    shares = dict(_share(part) for part in options.shares) if options.shares else None
    found = compare(
        _sessions(options),
        load_kpis(options.kpis),
        options.treatment,
        options.baseline,
        options.start,
        shares,
    )
    print(text(found))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "report.html").write_bytes(html(found))
        (options.out / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(asdict(found))) + b"\n")
        print(f"\nwrote {options.out}/report.html and report.json")


def _sessions(options: argparse.Namespace) -> pd.DataFrame:
    if options.topic is None:
        return read_sessions(options.sessions)
    return read_topic_sessions(client_properties(options.kafka, os.environ), options.topic)


def _moment(text: str) -> int:
    try:
        return moment_ms(msgspec.convert(text, Moment, strict=False))
    except msgspec.ValidationError:
        raise argparse.ArgumentTypeError(f"{text}: want 2026-05-01T08:00:00Z, or milliseconds since 1970") from None


def _share(text: str) -> tuple[str, float]:
    arm, _, share = text.partition("=")
    try:
        return arm, float(share)
    except ValueError:
        raise ValueError(f"--shares {text}: want ARM=SHARE, for example challenger=0.05") from None


def _plan(options: argparse.Namespace) -> None:
    sessions, kpis = _sessions(options), load_kpis(options.kpis)
    if options.kpi not in kpis:
        raise ValueError(f"--kpi {options.kpi}: want one of {', '.join(kpis)}")
    users = pd.Index(sessions["user_id"].unique())
    moments = kpi_moments(kpis[options.kpi], sessions, sessions[:0], users)
    effect = measure_effect(moments, moments)
    variance = effect.variance / 2 * len(users)
    difference = options.effect * effect.baseline
    days = (sessions["ended_at"].max() - sessions["started_at"].min()) / 86_400_000
    print(f"{options.kpi} is {effect.baseline:.4f} for {len(users)} users in {days:.1f} days")
    for look, sequential in (("looking whenever you like", True), ("looking once, at the end", False)):
        needed = users_needed(difference, variance, options.share, options.power, sequential=sequential)
        print(
            f"a change of {options.effect:+.1%} shows with a power of {options.power:.0%}, {look}: {needed} users,"
            f" at {len(users) / days:.0f} new users a day and a traffic of {options.traffic:.0%}"
            f" {needed / (len(users) / days * options.traffic):.1f} days"
        )


def main(arguments: list[str] | None = None) -> int:
    """Report on an experiment, or plan one."""
    parser = argparse.ArgumentParser(prog="python -m training.experiment", description=main.__doc__)
    commands = parser.add_subparsers(required=True)
    report = commands.add_parser("report", help="what sessions say of an arm against another")
    report.add_argument("--treatment", default="challenger", help="arm (challenger)")
    report.add_argument("--baseline", default="champion", help="arm (champion); control for what the models are worth")
    report.add_argument(
        "--start",
        type=_moment,
        metavar="TIME",
        help="2026-05-01T08:00:00Z or epoch ms; earlier sessions are history, which narrows intervals",
    )
    report.add_argument("--shares", nargs="+", metavar="ARM=SHARE", help="of users that each arm should have")
    report.add_argument("--out", type=Path, help="directory for report.html and report.json")
    report.set_defaults(run=_report)
    plan = commands.add_parser("plan", help="how many users and days an effect takes to show")
    plan.add_argument("--kpi", default="conversion_rate")
    plan.add_argument("--effect", type=float, required=True, help="as a share of the KPI: 0.05 for 5 %% more")
    plan.add_argument("--power", type=float, default=0.8)
    plan.add_argument("--share", type=float, default=0.5, help="of the treatment among the experiment's users")
    plan.add_argument("--traffic", type=float, default=1.0, help="share of all users that are in the experiment")
    plan.set_defaults(run=_plan)
    for command in (report, plan):
        source = command.add_mutually_exclusive_group(required=True)
        source.add_argument("--sessions", type=Path, help="records of topic sessions: .jsonl, .parquet")
        source.add_argument("--topic", help="the topic itself, as it is now")
        command.add_argument(
            "--kafka",
            action="extend",
            nargs="+",
            default=[],
            metavar="KEY=VALUE",
            help="client properties, such as bootstrap.servers=localhost:9092; a secret only from the environment, "
            "sasl.jaas.config='${NAME}'",
        )
        command.add_argument(
            "--kpis", type=Path, default=Path("conf", KPIS_FILE), help="file of the KPIs (default: %(default)s)"
        )
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, OSError) as error:  # KpiError, SourceError and KafkaClientError among them
        print(f"experiment: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
