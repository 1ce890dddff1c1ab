"""The report of an experiment: as text for a terminal, as a web page, and as a record."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, select_autoescape
from matplotlib.figure import Figure

from training.experiments.comparison import Report
from training.experiments.segments import Segment, Segmentation
from training.experiments.wording import arm_text, no_data_text, time_text
from udfs.measurement.effects import ALPHA, Effect
from udfs.measurement.experiment import KpiResult, StretchUsers
from udfs.measurement.sample_ratio import SRM_ALPHA

TEMPLATE = "experiment.html"
#: Texts for the states of a guardrail.
GUARDRAIL_TEXTS = {"held": "held", "broken": "broken", "open": "inconclusive"}
NO_RELATIVE = "no relative interval yet"
SEGMENTS_NOTE = (
    "Segments never change the decision. What is said of them is corrected for all segments and KPIs together (Holm)."
)
#: A smaller share of the variance is not worth a note.
_NOTED = 0.005


def text(report: Report, segmentations: Sequence[Segmentation] = ()) -> str:
    """The report for a terminal, the decision first, segments last."""
    lines = [report.decision, "", title(report), *stretch_texts(report), *user_texts(report)]
    if report.money:
        lines.append(money_text(report))
    lines.append("")
    for name, finding in report.findings.items():
        lines += _kpi_lines(name, finding)
    for part in segmentations:
        lines += ["", segments_title(part), *difference_texts(part), *_segment_lines(report, part)]
    if segmentations:
        lines += ["", SEGMENTS_NOTE]
    return "\n".join(lines)


def title(report: Report) -> str:
    """The arms and versions that are compared, and since when."""
    treatment, baseline = map(arm_text, report.experiment.arms)
    return f"{treatment} vs. {baseline}, since {time_text(report.experiment.stretches[0].start_ms)}"


def stretch_texts(report: Report) -> list[str]:
    """Each stretch with the share and the users of both arms."""
    return [_stretch_text(report, part) for part in report.stretches]


def user_texts(report: Report) -> list[str]:
    """The users and sessions of both arms, and whatever was dropped, left out or checked of them."""
    lines = [
        f"{arm}: {report.users[arm]:,} users, {report.sessions[arm]:,} sessions"
        for arm in (arm.name for arm in report.experiment.arms)
    ]
    if len(report.stretches) > 1:
        lines.append("A user of two stretches counts in each of them.")
    if report.moved_users:
        lines.append(
            f"{report.moved_users:,} users were in both arms: each counts in the arm of the first session of a "
            f"stretch, and {report.dropped_sessions:,} sessions in the other arm are dropped."
        )
    if report.bot_sessions or report.other_sessions:
        lines.append(
            f"Left out: {report.bot_sessions:,} sessions of bots, {report.other_sessions:,} of other arms and models."
        )
    if report.sample_ratio_p is not None:
        state = "do not match" if report.sample_ratio_p < SRM_ALPHA else "match"
        lines.append(f"The numbers of users {state} the shares (p = {report.sample_ratio_p:.2g}).")
    return lines


def money_text(report: Report) -> str:
    """The incremental revenue of the treatment, with its interval."""
    value, low, high = report.money
    return f"Incremental revenue of {report.experiment.treatment.name}: {value:+,.2f} ({low:+,.2f} to {high:+,.2f})"


def relative_text(effect: Effect) -> str:
    """The relative difference with its interval."""
    if effect.relative is None:
        return NO_RELATIVE
    value, low, high = effect.relative
    return f"{value:+.1%} ({low:+.1%} to {high:+.1%})"


def result_text(finding: KpiResult) -> str:
    """The result for a KPI."""
    return "better" if finding.is_better else "worse" if finding.is_worse else "not significant"


def guardrail_text(finding: KpiResult) -> str:
    """The state of a KPI's guardrail with its margin; empty without one."""
    if finding.guardrail is None:
        return ""
    state = "no data" if finding.effect is None else GUARDRAIL_TEXTS[finding.guardrail]
    return f"{state} (at most {100 * finding.margin:g}% worse)"


def notes(finding: KpiResult) -> list[str]:
    """What the limit of a session and the history of users did to a KPI."""
    lines = []
    if finding.cap is not None and finding.uncapped:
        raw = finding.uncapped
        lines.append(
            f"a session counts for at most {finding.cap:,.2f} ({100 * finding.kpi.winsorize:g}th percentile); without "
            f"this limit: {raw.treatment:.4f} vs. {raw.baseline:.4f}, {relative_text(raw)}"
        )
    effect = finding.effect
    if effect.variance_removed >= _NOTED:
        without = f"; without it: {effect.treatment / effect.baseline - 1:+.1%}" if effect.relative else ""
        lines.append(f"history removed {effect.variance_removed:.0%} of the variance{without}")
    return lines


def segments_title(part: Segmentation) -> str:
    """The attribute of segments, or why there are none."""
    return f"By {part.attribute}" + (f": no data, {part.no_data}" if part.no_data else "")


def difference_texts(part: Segmentation) -> list[str]:
    """A sentence for each segment in which the effect on a KPI differs from that on all other users."""
    return [
        f"The effect on {name.replace('_', ' ')} differs by {part.attribute}: {segment.name} "
        f"{segment.findings[name].effect.relative.value:+.1%}, all other users {contrast.others:+.1%} "
        f"(p = {contrast.p_value:.2g})."
        for segment in part.segments
        for name, contrast in segment.contrasts.items()
        if contrast.differs
    ]


def segments_with_data(part: Segmentation, name: str) -> tuple[Segment, ...]:
    """The segments to show for a KPI: all of them, or none if the KPI has data in no segment."""
    has_data = any(segment.findings[name].effect for segment in part.segments)
    return part.segments if has_data else ()


def html(report: Report, segmentations: Sequence[Segmentation] = ()) -> bytes:
    """The report as a self-contained page."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    words = (
        title,
        stretch_texts,
        user_texts,
        money_text,
        relative_text,
        result_text,
        guardrail_text,
        notes,
        no_data_text,
        segments_title,
        difference_texts,
        segments_with_data,
    )
    page = environment.get_template(TEMPLATE).render(
        report=report,
        segmentations=segmentations,
        segments_note=SEGMENTS_NOTE,
        plot=_plot(report),
        alpha=ALPHA,
        **{function.__name__: function for function in words},
    )
    return page.encode()


def record(report: Report, segmentations: Sequence[Segmentation] = ()) -> dict[str, Any]:
    """The report with names for all of its values, ready for JSON."""
    return _named(report) | {"segmentations": _named(tuple(segmentations))}


def _kpi_lines(name: str, finding: KpiResult) -> Iterator[str]:
    guardrail = guardrail_text(finding)
    ending = f", guardrail {guardrail}" if guardrail else ""
    effect = finding.effect
    if effect is None:
        yield f"{name:22} {no_data_text(finding.kpi, finding.no_data)}{ending}"
        return
    yield (
        f"{name:22} {effect.treatment:10.4f} vs. {effect.baseline:10.4f}  {relative_text(effect)}  "
        f"{result_text(finding)}{ending}"
    )
    for note in notes(finding):
        yield f"{'':22} {note}"


def _segment_lines(report: Report, part: Segmentation) -> Iterator[str]:
    for name in report.findings if part.segments else ():
        shown = segments_with_data(part, name)
        yield f"{name}:" if shown else f"{name}: no data in any segment"
        for segment in shown:
            finding = segment.findings[name]
            effect = finding.effect
            told = (
                no_data_text(finding.kpi, finding.no_data)
                if effect is None
                else f"{effect.treatment:10.4f} vs. {effect.baseline:10.4f}  {relative_text(effect)}  "
                f"{result_text(finding)}"
            )
            yield f"  {f'{segment.name}, {segment.users:,} users':28} {told}"


def _stretch_text(report: Report, part: StretchUsers) -> str:
    stretch = part.stretch
    until = "" if stretch.end_ms is None else f" to {time_text(stretch.end_ms)}"
    arms = zip(
        report.experiment.arms,
        (stretch.treatment_share, stretch.baseline_share),
        (part.treatment, part.baseline),
    )
    shown = ", ".join(f"{arm.name} {100 * share:g}% ({users:,} users)" for arm, share, users in arms)
    return f"from {time_text(stretch.start_ms)}{until}: {shown}"


def _named(value: Any) -> Any:
    """A value in which named tuples, which JSON would have as lists, have the names of their parts too."""
    if is_dataclass(value):
        return {field.name: _named(getattr(value, field.name)) for field in fields(value)}
    if hasattr(value, "_asdict"):
        return _named(value._asdict())
    if isinstance(value, dict):
        return {key: _named(part) for key, part in value.items()}
    return [_named(part) for part in value] if isinstance(value, tuple) else value


def _plot(report: Report) -> str:
    shown = {
        name: finding.effect.relative
        for name, finding in report.findings.items()
        if finding.effect and finding.effect.relative
    }
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
