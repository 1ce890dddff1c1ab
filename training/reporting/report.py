"""The report of a training: one HTML file for people, metrics.json for programs, and the model card."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
from jinja2 import Environment, FileSystemLoader, select_autoescape

from training.bundles.trainer import TrainedModel
from training.bundles.writer import file_digests
from training.evaluation.rule_baseline import describe_rule
from training.modeling.model_selection import scored
from training.reporting import curves, plots
from training.reporting.curves import Attributions, NoData
from training.reporting.facts import AUC, NOTHING_KNOWN, Background, Facts, gather
from training.reporting.model_card import CARD_FILE, model_card
from training.reporting.recommendation_text import NAMES, diagnosis_text, recommendation_text
from training.reporting.wording import MEANINGS, OUTCOMES, estimate_text, interval_text, number_text
from udfs.measurement.drift import JUDGED_ROWS

TEMPLATE = "report.html"
REPORT_FILE = "report.html"
METRICS_FILE = "metrics.json"
STRONGEST = 10  # features in the plots of contributions
IMPORTANT = 15  # features in the plot of importance

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=select_autoescape(),
    trim_blocks=True,
    lstrip_blocks=True,
)


def metrics_json(facts: Facts) -> bytes:
    """The report for programs. `read_recommendation` reads the recommendation back."""
    evaluation, champion = facts.evaluation, facts.champion
    content = {
        "recommendation": facts.recommendation,
        "recommendation_text": recommendation_text(facts.recommendation),
        "model": evaluation.model,
        "label": evaluation.label,
        "rows": evaluation.rows,
        "users": evaluation.users,
        "data": facts.background.data,
        "data_warnings": facts.background.warnings,
        "metrics": evaluation.metrics,
        "best_possible_auc": evaluation.best_possible_auc,
        "cross_validated_auc": evaluation.cross_validated_auc,
        "training_auc": evaluation.training_auc,
        "diagnosis": facts.diagnosis,
        "choice": evaluation.choice,
        "repeated": facts.repeated,
        "compared": evaluation.compared,
        "differences": evaluation.differences,
        "rule": evaluation.rule,
        "champion": champion
        and {
            "version": champion.version,
            "rows": champion.rows,
            "fitted_rows": champion.fitted_rows,
            "model": champion.model_metrics,
            "champion": champion.champion_metrics,
            "differences": champion.differences,
        },
        "gains": evaluation.gains,
        "calibration": evaluation.calibration,
        "thresholds": evaluation.thresholds,
        "segments": facts.segments,
        f"{facts.period_unit}s": facts.periods,
        "importance": dict(evaluation.importance),
        "pruning": evaluation.pruning,
        "learning_curve": evaluation.learning_curve,
        "parameters": evaluation.parameters,
        "features": facts.manifest.features,
        "unwatched": facts.unwatched,
    }
    return msgspec.json.format(msgspec.json.encode(content)) + b"\n"


def report_html(facts: Facts) -> bytes:
    """The report as a self-contained page."""
    evaluation = facts.evaluation
    explored = curves.explored_thresholds(scored(evaluation.holdout, evaluation.probability))
    page = _TEMPLATES.get_template(TEMPLATE).render(
        facts=facts,
        manifest=facts.manifest,
        evaluation=evaluation,
        repeated=facts.repeated,
        recommendation=facts.recommendation,
        recommendation_text=recommendation_text(facts.recommendation),
        judged_rows=JUDGED_ROWS,
        names=NAMES,
        meanings=MEANINGS,
        outcomes=OUTCOMES,
        auc=AUC,
        rule=evaluation.rule and describe_rule(evaluation.rule.rule),
        best_threshold=max(evaluation.thresholds, key=lambda row: row["value"].value, default=None),
        diagnosis=diagnosis_text(facts.diagnosis),
        explored=None if isinstance(explored, NoData) else explored,
        explored_why=explored.why if isinstance(explored, NoData) else "",
        plots=_plots(facts),
        number=number_text,
        interval=interval_text,
        estimate=estimate_text,
        sample=curves.SAMPLE,
    )
    return page.encode()


def with_report(trained: TrainedModel, background: Background = NOTHING_KNOWN) -> TrainedModel:
    """The model with its report and its card among the bundle's files."""
    facts = gather(trained, background)
    written = {METRICS_FILE: metrics_json(facts), REPORT_FILE: report_html(facts), CARD_FILE: model_card(facts)}
    files = {**trained.files, **written}
    return replace(trained, files=files, manifest=msgspec.structs.replace(trained.manifest, files=file_digests(files)))


def _plots(facts: Facts) -> dict[str, str]:
    """The plots as HTML, by name."""
    evaluation = facts.evaluation
    rows = scored(evaluation.holdout, evaluation.probability)
    lacking = curves.lacks_class(rows.labels)
    curve = evaluation.learning_curve
    no_period = NoData(f"no {facts.period_unit} has enough positives")
    no_curve = NoData("a part of the training users has one class only")
    plot = plots.plot
    return {
        "roc": _curves("ROC curve", [("model", curves.roc(rows))], plots.draw_roc),
        "precision_recall": _curves(
            "Precision and recall", [("model", curves.precision_recall(rows))], plots.draw_precision_recall
        ),
        "gain": plot("Gain", lacking or evaluation.gains, plots.draw_gain),
        "lift": plot("Lift", lacking or evaluation.gains, plots.draw_lift),
        "calibration": plot("Calibration", evaluation.calibration, plots.draw_calibration),
        "scores": plot("Scores by outcome", curves.score_histogram(rows), plots.draw_scores),
        "learning": plot(
            "Learning curve",
            curve if curve.points[evaluation.model] else no_curve,
            plots.draw_learning,
            f"Means of {curve.folds} folds, with 95% intervals for held-out users.",
            width=5.2,
        ),
        "importance": plot(
            "Permutation importance", evaluation.importance[:IMPORTANT], plots.draw_importance, left=1.9
        ),
        "periods": plot(
            f"AUC by {facts.period_unit}",
            facts.periods if any(period.metrics for period in facts.periods) else no_period,
            plots.draw_periods,
        ),
        **_attribution_plots(facts),
        **_champion_plots(facts),
    }


def _curves(title: str, named: list, draw) -> str:
    """Curves of one or more models in a plot; of none, if one of them has no data."""
    without = next((band for _, band in named if isinstance(band, NoData)), None)
    return plots.plot(title, without or named, draw)


def _attribution_plots(facts: Facts) -> dict[str, str]:
    evaluation, names = facts.evaluation, facts.manifest.features
    columns = [evaluation.holdout.names.index(name) for name in names]
    found = curves.strongest_features(
        names,
        evaluation.holdout.features[:, columns],
        evaluation.contributions[:, :-1],
        evaluation.holdout.weight.astype(np.float64),
        STRONGEST,
        facts.manifest.seed or 1,
    )
    swarm = plots.plot(
        "Contributions",
        found,
        plots.draw_beeswarm,
        "One point per event; blue: low value of the feature, red: high, grey: missing.",
        width=5.6,
        height=4.2,
        left=1.9,
    )
    return {"beeswarm": swarm, "dependence": "".join(map(_dependence, _by_feature(found)))}


def _by_feature(found: Attributions | NoData) -> list[tuple[str, np.ndarray, np.ndarray]]:
    return [] if isinstance(found, NoData) else list(zip(found.names, found.values.T, found.added.T))


def _dependence(points: tuple[str, np.ndarray, np.ndarray]) -> str:
    return plots.plot(points[0], points, plots.draw_dependence, width=3.2, height=2.3)


def _champion_plots(facts: Facts) -> dict[str, str]:
    champion = facts.champion
    if champion is None:
        return {}
    models = (("this model", champion.model), ("champion", champion.champion))
    return {
        "champion_roc": _curves("ROC curve", [(name, curves.roc(rows)) for name, rows in models], plots.draw_roc),
        "champion_precision_recall": _curves(
            "Precision and recall",
            [(name, curves.precision_recall(rows)) for name, rows in models],
            plots.draw_precision_recall,
        ),
    }
