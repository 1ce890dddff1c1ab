"""The report of a training: one HTML file for people, metrics.json for programs."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import msgspec
import numpy as np
from jinja2 import Environment, FileSystemLoader, select_autoescape
from matplotlib.figure import Figure

from training.bundles.trainer import TrainedModel
from training.bundles.writer import file_digests
from training.data.examples import Examples
from training.evaluation.repeated import Repeated
from training.evaluation.rule_baseline import describe_rule
from training.modeling.metrics import METRICS, Estimate, LabelledScores, estimate
from training.reporting.recommendation import diagnose, recommend
from training.reporting.recommendation_text import NAMES, diagnosis_text, recommendation_text
from udfs.contracts.packed_events import DEVICES, EVENT_KINDS, standard_kinds
from udfs.contracts.profiles import country_of
from udfs.measurement.drift import JUDGED_ROWS
from udfs.models.attributions import strongest

TEMPLATE = "report.html"
REPORT_FILE = "report.html"
METRICS_FILE = "metrics.json"
SMALLEST_SEGMENT = 30  # positives; fewer are too noisy
MISTAKES, MISTAKE_EVENTS, MISTAKE_REASONS = 5, 8, 5

mpl.rcParams["svg.hashsalt"] = "purchase-intent"  # makes equal figures equal bytes


def segments(trained: TrainedModel) -> list[dict]:
    """The model's metrics by segment of the holdout; none for a segment with too few positives."""
    holdout, probability = trained.evaluation.holdout, trained.evaluation.probability
    rows = []
    for name, mask in _parts(holdout).items():
        labels = holdout.labels[mask]
        if len(labels) in (0, len(holdout)):
            continue
        row = {"name": name, "rows": len(labels), "positives": int(labels.sum()), "metrics": None}
        if SMALLEST_SEGMENT <= labels.sum() < len(labels):
            measured = LabelledScores(labels, probability[mask], holdout.weight[mask], holdout.user[mask])
            row["metrics"] = estimate(measured, {name: METRICS[name] for name in _SEGMENT_METRICS})
        rows.append(row)
    return rows


def _parts(examples: Examples) -> dict[str, np.ndarray]:
    """Masks bool[n] of the segments whose features are present: logged features may lack some."""
    columns = dict(zip(examples.names, examples.features.T))
    parts: dict[str, np.ndarray] = {}
    if (first_visit := columns.get("first_visit")) is not None:
        parts |= {"user: first visit": first_visit == 1, "user: returning": first_visit != 1}
    if (devices := columns.get("device")) is not None:
        parts |= {f"device: {device}": devices == code for code, device in enumerate(DEVICES)}
    if (countries := columns.get("country")) is not None:
        codes, counts = np.unique(countries, return_counts=True)
        frequent = codes[np.argsort(-counts)][:6]
        parts |= {f"country: {country_of(int(code))}": countries == code for code in frequent}
    parts |= _bins("history", "events", examples.ends - examples.starts, (4, 16, 64))
    if (age_s := columns.get("session_duration_s")) is not None:
        parts |= _bins("session age", "s", age_s, (60, 600))
    return parts


_SEGMENT_METRICS = ("roc_auc", "average_precision", "positive_rate", "mean_probability")


def _bins(name: str, unit: str, values: np.ndarray, edges: tuple[int, ...]) -> dict[str, np.ndarray]:
    bounds = [-np.inf, *edges, np.inf]
    texts = [
        f"below {edges[0]} {unit}",
        *(f"{low} to {high - 1} {unit}" for low, high in zip(edges, edges[1:])),
        f"{edges[-1]} {unit} or more",
    ]
    return {f"{name}: {text}": (values >= low) & (values < high) for text, low, high in zip(texts, bounds, bounds[1:])}


def mistakes(trained: TrainedModel) -> list[dict]:
    """The most confident mistakes, one row per user, with the events before and the contributions."""
    evaluation = trained.evaluation
    holdout, names = evaluation.holdout, trained.manifest.features
    rows = []
    for positive, order in (
        (False, np.argsort(-evaluation.probability, kind="stable")),
        (True, np.argsort(evaluation.probability, kind="stable")),
    ):
        users = set()
        for row in order[holdout.labels[order] == positive]:
            if len(users) == MISTAKES:
                break
            if holdout.user[row] in users:
                continue
            users.add(holdout.user[row])
            history = holdout.events[holdout.starts[row] : holdout.ends[row]][-MISTAKE_EVENTS:]
            kinds = [EVENT_KINDS[kind] for kind in standard_kinds(history)]
            rows.append(
                {
                    "user": str(holdout.user_ids[holdout.user[row]]),
                    "label": positive,
                    "probability": float(evaluation.probability[row]),
                    "events": kinds,
                    "reasons": strongest(names, evaluation.contributions[row, :-1], MISTAKE_REASONS),
                }
            )
    return rows


def metrics_json(trained: TrainedModel) -> bytes:
    """The report for programs. `read_recommendation` reads the recommendation back."""
    evaluation, recommendation = trained.evaluation, recommend(trained)
    content = {
        "recommendation": recommendation,
        "recommendation_text": recommendation_text(recommendation),
        "model": evaluation.model,
        "label": evaluation.label,
        "rows": evaluation.rows,
        "users": evaluation.users,
        "metrics": evaluation.metrics,
        "best_possible_auc": evaluation.best_possible_auc,
        "cross_validated_auc": evaluation.cross_validated_auc,
        "training_auc": evaluation.training_auc,
        "choice": evaluation.choice,
        "repeated": evaluation.repeated if isinstance(evaluation.repeated, Repeated) else None,
        "compared": evaluation.compared,
        "differences": evaluation.differences,
        "rule": evaluation.rule,
        "gains": evaluation.gains,
        "calibration": evaluation.calibration,
        "thresholds": evaluation.thresholds,
        "importance": dict(evaluation.importance),
        "pruning": evaluation.pruning,
        "learning_curve": evaluation.learning_curve,
        "parameters": evaluation.parameters,
        "features": trained.manifest.features,
        "unwatched": trained.unwatched,
    }
    return msgspec.json.format(msgspec.json.encode(content)) + b"\n"


_MEANINGS = {
    "roc_auc": ("ROC-AUC", "how often a positive outranks a negative; 0.5 is chance, 1 is perfect"),
    "average_precision": (
        "Average precision",
        "precision over all thresholds; the positive rate is chance, 1 is perfect",
    ),
    "log_loss": ("Log loss", "error of the probabilities; lower is better"),
    "brier": ("Brier score", "mean squared error of the probabilities; lower is better"),
    "positive_rate": ("Positive rate", "share of events with a positive label"),
    "mean_probability": ("Mean score", "should be close to the positive rate"),
}


def report_html(trained: TrainedModel) -> bytes:
    """The report as a self-contained page."""
    evaluation, recommendation = trained.evaluation, recommend(trained)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    plots = {
        "gains": _plot(_draw_gains, trained),
        "calibration": _plot(_draw_calibration, trained),
        "learning": _plot(_draw_learning, trained),
        "importance": _plot(_draw_importance, trained),
    }
    page = environment.get_template(TEMPLATE).render(
        manifest=trained.manifest,
        evaluation=evaluation,
        unwatched=trained.unwatched,
        judged_rows=JUDGED_ROWS,
        recommendation=recommendation,
        recommendation_text=recommendation_text(recommendation),
        names=NAMES,
        repeated=evaluation.repeated if isinstance(evaluation.repeated, Repeated) else None,
        rule=evaluation.rule and describe_rule(evaluation.rule.rule),
        meanings=_MEANINGS,
        best_threshold=max(evaluation.thresholds, key=lambda row: row["value"].value),
        diagnosis=diagnosis_text(diagnose(evaluation)),
        segments=segments(trained),
        mistakes=mistakes(trained),
        plots=plots,
    )
    return page.encode()


def with_report(trained: TrainedModel) -> TrainedModel:
    """The model with its report among the bundle's files."""
    files = {**trained.files, METRICS_FILE: metrics_json(trained), REPORT_FILE: report_html(trained)}
    manifest = msgspec.structs.replace(trained.manifest, files=file_digests(files))
    return replace(trained, files=files, manifest=manifest)


def _plot(draw: Callable, trained: TrainedModel) -> str:
    figure = Figure(figsize=(5.4, 3.4), layout="constrained")
    draw(figure.subplots(), trained.evaluation)
    svg = io.StringIO()
    figure.savefig(svg, format="svg", metadata={"Date": None})
    text = svg.getvalue()
    return text[text.index("<svg") :]


def _draw_gains(axes, evaluation) -> None:
    shares = [0, *(row["share"] for row in evaluation.gains)]
    gains = [Estimate(0, 0, 0), *(row["gain"] for row in evaluation.gains)]
    axes.plot(shares, [gain.value for gain in gains], marker="o")
    axes.fill_between(shares, [gain.low for gain in gains], [gain.high for gain in gains], alpha=0.2)
    axes.plot([0, 1], [0, 1], linestyle=":", color="gray")
    axes.set(xlabel="Share of events acted on", ylabel="Share of positives reached", title="Gain")


def _draw_calibration(axes, evaluation) -> None:
    predicted = [row["predicted"] for row in evaluation.calibration]
    observed = [row["seen"] for row in evaluation.calibration]
    axes.vlines(predicted, [rate.low for rate in observed], [rate.high for rate in observed])
    axes.plot(predicted, [rate.value for rate in observed], marker="o")
    top = max([*predicted, *(rate.high for rate in observed)])
    axes.plot([0, top], [0, top], linestyle=":", color="gray")
    axes.set(xlabel="Mean score", ylabel="Observed positive rate", title="Calibration")


def _draw_learning(axes, evaluation) -> None:
    rows = [point["rows"] for point in evaluation.learning_curve]
    for name, text in (("seen", "Training users"), ("held_out", "Held-out users")):
        axes.plot(rows, [point[name] for point in evaluation.learning_curve], marker="o", label=text)
    axes.legend()
    axes.set(xlabel="Training events", ylabel="AUC", title="Learning curve")


def _draw_importance(axes, evaluation) -> None:
    top = evaluation.importance[:15][::-1]
    axes.barh([name for name, _ in top], [drop for _, drop in top])
    axes.tick_params(axis="y", labelsize=7)
    axes.set(xlabel="AUC drop when shuffled", title="Permutation importance")
