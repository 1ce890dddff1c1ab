"""Read and plan experiments on sessions, of files or of their topic.

    python -m training.experiment report --topic sessions --kafka bootstrap.servers=localhost:9092 --out report

The unit is the user. A user who was in more than one arm counts in the first. Exit code 2: refused, one line says why.
"""

import argparse
import io
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, select_autoescape
from matplotlib.figure import Figure

from training.sessions import read_sessions, read_topic_sessions
from udfs.durations import Moment, moment_ms
from udfs.effects import ALPHA, Moments, measure_effect, users_needed
from udfs.experiments import Arm, Verdict, judge
from udfs.kafka.properties import client_properties
from udfs.kpis import KPIS_FILE, Kpi, load_kpis, values

TEMPLATE = "experiment.html"
REVENUE = "revenue_per_session"


@dataclass(frozen=True)
class Report(Verdict):
    """A verdict on sessions that are at hand: how many they are, and what the treatment brought."""

    sessions: dict[str, int]
    money: tuple[float, float, float] | None  # value, low, high


def compare(
    sessions: pd.DataFrame,
    kpis: dict[str, Kpi],
    treatment: str,
    baseline: str,
    start_ms: int | None = None,
    shares: dict[str, float] | None = None,
) -> Report:
    """What sessions say of a treatment against a baseline, both names of arms.

    Sessions that began before `start_ms` are the users' history. `shares` of users that the arms should have are
    checked. Raises ValueError when an arm has too few users.
    """
    is_earlier = sessions["started_at"] < (start_ms or 0)
    current = sessions[~is_earlier & sessions["arm"].isin([treatment, baseline])].sort_values(["started_at", "arm"])
    arm_of = current.groupby("user_id")["arm"].first()
    current = current[current["arm"] == current["user_id"].map(arm_of)]
    counts = {arm: int((current["arm"] == arm).sum()) for arm in (treatment, baseline)}
    arms = []
    for name in (treatment, baseline):
        users = arm_of.index[arm_of == name]
        if len(users) < 2:
            raise ValueError(f"arm {name} has {len(users)} users: want at least 2; arms there are {_arms(sessions)}")
        moments = {kpi: _moments(kpis[kpi], current, sessions[is_earlier], users) for kpi in kpis}
        arms.append(Arm(name, len(users), moments))
    verdict = judge(*arms, kpis, shares)
    money = None
    if REVENUE in verdict.findings:
        effect = verdict.findings[REVENUE].effect
        money = tuple(round(value * counts[treatment], 2) for value in (effect.difference, effect.low, effect.high))
    return Report(**vars(verdict), sessions=counts, money=money)


def _arms(sessions: pd.DataFrame) -> str:
    return ", ".join(sorted(sessions["arm"].dropna().unique())) or "none"


def _moments(kpi: Kpi, current: pd.DataFrame, earlier: pd.DataFrame, users: pd.Index) -> Moments:
    def sums(term: str, of: pd.DataFrame) -> np.ndarray:
        return values(term, of).groupby(of["user_id"]).sum().reindex(users, fill_value=0.0).to_numpy(float)

    return Moments.of_users(*(sums(term, of) for of in (current, earlier) for term in (kpi.numerator, kpi.denominator)))


def text(report: Report) -> str:
    """The report for a terminal, the decision first."""
    lines = [report.decision, ""]
    for arm in (report.treatment, report.baseline):
        lines.append(f"{arm}: {report.users[arm]} users, {report.sessions[arm]} sessions")
    if report.money:
        value, low, high = report.money
        lines.append(f"money that {report.treatment} brought: {value:+,.2f} ({low:+,.2f} to {high:+,.2f})")
    lines.append("")
    for name, finding in report.findings.items():
        effect = finding.effect
        told = "better" if finding.is_better else "worse" if finding.is_worse else "open"
        relative, low, high = effect.relative
        guardrail = f", guardrail {finding.guardrail}" if finding.guardrail else ""
        lines.append(
            f"{name:22} {effect.treatment:10.4f} against {effect.baseline:10.4f}  "
            f"{relative:+.1%} ({low:+.1%} to {high:+.1%})  {told}{guardrail}"
        )
    return "\n".join(lines)


def html(report: Report) -> bytes:
    """The report as a page without any reference to the outside."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(TEMPLATE).render(report=report, plot=_plot(report), alpha=ALPHA)
    return page.encode()


def _plot(report: Report) -> str:
    shown = {name: finding.effect.relative for name, finding in report.findings.items()}
    shown = {name: relative for name, relative in shown.items() if np.isfinite(relative).all()}
    if not shown:
        return ""
    figure = Figure(figsize=(7, 0.5 + 0.4 * len(shown)), layout="constrained")
    axes = figure.subplots()
    for row, (value, low, high) in enumerate(reversed(shown.values())):
        axes.plot([low * 100, high * 100], [row, row], color="C0")
        axes.plot(value * 100, row, "o", color="C0")
    axes.axvline(0, linestyle=":", color="gray")
    axes.set(yticks=range(len(shown)), yticklabels=list(reversed(shown)), xlabel="difference, % of the baseline")
    svg = io.StringIO()
    figure.savefig(svg, format="svg", metadata={"Date": None})
    drawn = svg.getvalue()
    return drawn[drawn.index("<svg") :]


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
    moments = _moments(kpis[options.kpi], sessions, sessions[:0], users)
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
