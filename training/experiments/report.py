"""The report of an experiment, as text for a terminal and as a web page."""

import io
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, select_autoescape
from matplotlib.figure import Figure

from training.experiments.comparison import Report
from udfs.measurement.effects import ALPHA
from udfs.measurement.experiment import KpiResult

TEMPLATE = "experiment.html"
#: Texts for the states of a guardrail.
GUARDRAIL_TEXTS = {"held": "held", "broken": "broken", "open": "inconclusive"}


def text(report: Report) -> str:
    """The report for a terminal, the decision first."""
    lines = [report.decision, ""]
    for arm in (report.treatment, report.baseline):
        lines.append(f"{arm}: {report.users[arm]} users, {report.sessions[arm]} sessions")
    if report.money:
        value, low, high = report.money
        lines.append(f"incremental revenue of {report.treatment}: {value:+,.2f} ({low:+,.2f} to {high:+,.2f})")
    lines.append("")
    for name, finding in report.findings.items():
        effect = finding.effect
        relative, low, high = effect.relative
        guardrail = f", guardrail {GUARDRAIL_TEXTS[finding.guardrail]}" if finding.guardrail else ""
        lines.append(
            f"{name:22} {effect.treatment:10.4f} vs. {effect.baseline:10.4f}  "
            f"{relative:+.1%} ({low:+.1%} to {high:+.1%})  {result_text(finding)}{guardrail}"
        )
    return "\n".join(lines)


def result_text(finding: KpiResult) -> str:
    """The result for a KPI as text."""
    return "better" if finding.is_better else "worse" if finding.is_worse else "not significant"


def html(report: Report) -> bytes:
    """The report as a self-contained page."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(TEMPLATE).render(
        report=report, plot=_plot(report), alpha=ALPHA, result_text=result_text, guardrail_texts=GUARDRAIL_TEXTS
    )
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
    axes.set(yticks=range(len(shown)), yticklabels=list(reversed(shown)), xlabel="Difference, % of the baseline")
    svg = io.StringIO()
    figure.savefig(svg, format="svg", metadata={"Date": None})
    drawn = svg.getvalue()
    return drawn[drawn.index("<svg") :]
