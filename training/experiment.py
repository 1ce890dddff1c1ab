"""Read and plan experiments on sessions: `python -m training.experiment report --sessions sessions.jsonl --out report`.

The unit is the user. A user who was in more than one arm counts in the first. Exit code 2: refused, one line says why.
"""

import argparse
import io
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from jinja2 import Environment, FileSystemLoader, select_autoescape
from matplotlib.figure import Figure

from training.effects import (
    ALPHA,
    SRM_ALPHA,
    Effect,
    UserSums,
    holm,
    measure_effect,
    sample_ratio_p,
    users_needed,
)
from training.records import SourceError
from udfs.kpis import Kpi, load_kpis, values

KPIS_FILE = Path(__file__).parents[1] / "conf" / "kpis.yaml"
TEMPLATE = "experiment.html"
REVENUE = "revenue_per_session"


class Session(msgspec.Struct):
    """A record of topic `sessions`, as far as experiments read it."""

    user_id: str
    arm: str | None
    started_at: int
    ended_at: int
    events: int
    pages: int
    view_promotions: int
    select_promotions: int
    add_to_carts: int
    begin_checkouts: int
    form_starts: int
    form_submits: int
    purchases: int
    revenue: float


@dataclass(frozen=True)
class Finding:
    """A KPI's effect, and what it means."""

    kpi: Kpi
    effect: Effect
    is_better: bool  # after Holm's correction over all KPIs
    is_worse: bool
    guardrail: str | None  # held, broken or open; None: the KPI has none


@dataclass(frozen=True)
class Report:
    """An experiment's state: the decision in words, and what it rests on."""

    decision: str
    treatment: str
    baseline: str
    users: dict[str, int]
    sessions: dict[str, int]
    sample_ratio_p: float | None
    findings: dict[str, Finding]
    money: tuple[float, float, float] | None  # that the treatment brought: value, low, high


def read_sessions(path: Path) -> pd.DataFrame:
    """The session records of a file, or of all files under a directory: JSON Lines (.jsonl) or Parquet (.parquet).

    Raises SourceError naming file, line, rule and value.
    """
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    files = [file for file in files if file.suffix in (".jsonl", ".parquet")]
    if not files or not path.exists():
        raise SourceError(f"{path}: no .jsonl or .parquet file there")
    rows: list[Session] = []
    for file in files:
        try:
            rows += _parquet_sessions(file) if file.suffix == ".parquet" else _json_sessions(file)
        except (OSError, msgspec.ValidationError) as error:
            raise SourceError(f"{file}: {error}") from None
    return pd.DataFrame(map(msgspec.structs.asdict, rows), columns=Session.__struct_fields__)


def _json_sessions(file: Path) -> list[Session]:
    decode, rows = msgspec.json.Decoder(Session).decode, []
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        try:
            rows.append(decode(line))
        except msgspec.DecodeError as error:
            raise SourceError(f"{file}: line {number}: {error}") from None
    return rows


def _parquet_sessions(file: Path) -> list[Session]:
    return msgspec.convert(pq.read_table(file).to_pylist(), list[Session])


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
    current = sessions[~is_earlier & sessions["arm"].isin([treatment, baseline])].sort_values("started_at")
    arm_of = current.groupby("user_id")["arm"].first()
    current = current[current["arm"] == current["user_id"].map(arm_of)]
    users = {arm: int((arm_of == arm).sum()) for arm in (treatment, baseline)}
    for arm, count in users.items():
        if count < 2:
            raise ValueError(f"arm {arm} has {count} users: want at least 2; arms there are {_arms(sessions)}")
    ratio_p = sample_ratio_p(users, shares) if shares else None

    effects = {}
    for name, kpi in kpis.items():
        sums = [_user_sums(kpi, current, sessions[is_earlier], arm_of, arm) for arm in (treatment, baseline)]
        if all(arm.denominator.sum() > 0 for arm in sums):
            effects[name] = measure_effect(*sums)
    fallen = holm({name: effect.p_value for name, effect in effects.items()})
    findings = {name: _finding(kpis[name], effect, name in fallen) for name, effect in effects.items()}
    counts = {arm: int((current["arm"] == arm).sum()) for arm in users}
    money = None
    if REVENUE in effects:
        found = effects[REVENUE]
        money = tuple(round(value * counts[treatment], 2) for value in (found.difference, found.low, found.high))
    return Report(_decision(ratio_p, findings, treatment), treatment, baseline, users, counts, ratio_p, findings, money)


def _arms(sessions: pd.DataFrame) -> str:
    return ", ".join(sorted(sessions["arm"].dropna().unique())) or "none"


def _user_sums(kpi: Kpi, current: pd.DataFrame, earlier: pd.DataFrame, arm_of: pd.Series, arm: str) -> UserSums:
    users = arm_of.index[arm_of == arm]

    def sums(term: str, of: pd.DataFrame) -> np.ndarray:
        return values(term, of).groupby(of["user_id"]).sum().reindex(users, fill_value=0.0).to_numpy(float)

    found = [sums(term, of) for of in (current, earlier) for term in (kpi.numerator, kpi.denominator)]
    return UserSums(*found) if len(earlier) else UserSums(*found[:2])


def _finding(kpi: Kpi, effect: Effect, is_told: bool) -> Finding:
    sign = 1 if kpi.direction == "up" else -1
    worst, best = sorted((sign * effect.low, sign * effect.high))
    guardrail = None
    if kpi.guardrail is not None:
        margin = kpi.guardrail * abs(effect.baseline)
        guardrail = "held" if worst >= -margin else "broken" if best < -margin else "open"
    better = sign * effect.difference > 0
    return Finding(kpi, effect, is_told and better, is_told and not better, guardrail)


def _decision(ratio_p: float | None, findings: dict[str, Finding], treatment: str) -> str:
    if ratio_p is not None and ratio_p < SRM_ALPHA:
        return (
            f"Fix first: the arms do not have the users that their shares say (p = {ratio_p:.2g}). Users are lost in "
            "one of them, and no effect below can be trusted."
        )
    broken = [name for name, finding in findings.items() if finding.guardrail == "broken"]
    worse = [name for name, finding in findings.items() if finding.is_worse]
    if broken or worse:
        return f"Stop {treatment}: {', '.join(dict.fromkeys([*broken, *worse]))} got worse."
    better = [name for name, finding in findings.items() if finding.is_better]
    still_open = [name for name, finding in findings.items() if finding.guardrail == "open"]
    if better and not still_open:
        return f"Ship {treatment}: {', '.join(better)} got better, and every guardrail holds."
    if better:
        return (
            f"Keep running: {', '.join(better)} got better; {', '.join(still_open)} could still be worse than allowed."
        )
    return "Keep running: no difference can be told from chance yet."


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
    figure = Figure(figsize=(7, 0.5 + 0.4 * len(report.findings)), layout="constrained")
    axes = figure.subplots()
    shown = {name: finding.effect.relative for name, finding in report.findings.items()}
    shown = {name: relative for name, relative in shown.items() if np.isfinite(relative).all()}
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
        read_sessions(options.sessions),
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


def _share(text: str) -> tuple[str, float]:
    arm, _, share = text.partition("=")
    try:
        return arm, float(share)
    except ValueError:
        raise ValueError(f"--shares {text}: want ARM=SHARE, for example challenger=0.05") from None


def _plan(options: argparse.Namespace) -> None:
    sessions, kpis = read_sessions(options.sessions), load_kpis(options.kpis)
    if options.kpi not in kpis:
        raise ValueError(f"--kpi {options.kpi}: want one of {', '.join(kpis)}")
    everybody = sessions.assign(arm="all").groupby("user_id")["arm"].first()
    sums = _user_sums(kpis[options.kpi], sessions, sessions[:0], everybody, "all")
    effect = measure_effect(sums, sums)
    variance = effect.variance / 2 * len(sums)
    difference = options.effect * effect.baseline
    days = (sessions["ended_at"].max() - sessions["started_at"].min()) / 86_400_000
    print(f"{options.kpi} is {effect.baseline:.4f} for {len(sums)} users in {days:.1f} days")
    for look, sequential in (("looking whenever you like", True), ("looking once, at the end", False)):
        users = users_needed(difference, variance, options.share, options.power, sequential=sequential)
        print(
            f"a change of {options.effect:+.1%} shows with a power of {options.power:.0%}, {look}: {users} users,"
            f" at {len(sums) / days:.0f} new users a day and a traffic of {options.traffic:.0%}"
            f" {users / (len(sums) / days * options.traffic):.1f} days"
        )


def main(arguments: list[str] | None = None) -> int:
    """Report on an experiment, or plan one."""
    parser = argparse.ArgumentParser(prog="python -m training.experiment", description=main.__doc__)
    commands = parser.add_subparsers(required=True)
    report = commands.add_parser("report", help="what sessions say of an arm against another")
    report.add_argument("--treatment", default="challenger", help="arm (challenger)")
    report.add_argument("--baseline", default="champion", help="arm (champion); control for what the models are worth")
    report.add_argument("--start", type=int, help="epoch ms; earlier sessions are history, which narrows intervals")
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
        command.add_argument("--sessions", type=Path, required=True, help="records of topic sessions: .jsonl, .parquet")
        command.add_argument("--kpis", type=Path, default=KPIS_FILE)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, OSError) as error:  # KpiError and SourceError among them
        print(f"experiment: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
