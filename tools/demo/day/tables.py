"""Tables of the demo's day for the terminal."""

from rich.console import Group
from rich.table import Column, Table
from rich.text import Text

from training.experiments.report import GUARDRAIL_TEXTS


def report_tables(figures: dict) -> Group:
    """The figures as tables for the terminal."""
    parts = [*_model_table(figures["models"]), *_kpi_table(figures["kpis"])]
    return Group(*parts, *_experiment_table(figures["experiment"]), *_drift_tables(figures["drift"]))


def _model_table(models: list[dict]) -> list[Text | Table]:
    table = Table("Model", "Period", "Scores", "Predicted", "Observed", "AUC", "Best possible AUC")
    for row in models:
        rates = (f"{row[name]:.1%}" for name in ("mean_score", "positive_rate"))
        aucs = (_figure(row[name]) for name in ("auc", "best_possible_auc"))
        table.add_row(f"{row['model']} ({row['role']})", row["when"], str(row["scores"]), *rates, *aucs)
    return [_title("Live scores and outcomes"), table]


def _kpi_table(kpis: dict[str, dict]) -> list[Text | Table]:
    arms = sorted({arm for values in kpis.values() for arm in values})
    table = Table("KPI", *arms)
    for name, values in kpis.items():
        table.add_row(name, *(_figure(values.get(arm)) for arm in arms))
    return [_title("KPIs by arm since the challenger reached its full share"), table]


def _experiment_table(experiment: dict | None) -> list[Text | Table]:
    if experiment is None:
        return [_title("Experiment: no results")]
    users = ", ".join(f"{arm} {count:,} users" for arm, count in experiment["users"].items())
    names = Column("KPI", no_wrap=True, min_width=max(len(effect["kpi"]) for effect in experiment["kpis"]))
    table = Table(names, "Treatment", "Baseline", "Difference", "95% interval", "Result", "Guardrail")
    for effect in experiment["kpis"]:
        values = (_figure(effect[name]) for name in ("treatment_value", "baseline_value", "difference"))
        guardrail = GUARDRAIL_TEXTS.get(effect["guardrail"], "")
        if effect["no_data"] is None:
            interval = f"{_figure(effect['low'])} to {_figure(effect['high'])}"
            result = "better" if effect["is_better"] else "worse" if effect["is_worse"] else "not significant"
        else:
            interval, result = "", f"no data: {effect['no_data']}"
        table.add_row(effect["kpi"], *values, interval, result, guardrail)
    return [_title(f"Experiment ({users}): {experiment['decision']}"), table]


def _drift_tables(drift: dict[str, dict]) -> list[Text | Table]:
    if not drift:
        return [_title("Drift: no results")]
    parts = []
    for version, summary in drift.items():
        minutes = summary["alarm_after_minutes"]
        alarm = "no alarm after the shift" if minutes is None else f"alarm {minutes} min after the shift"
        levels = (_levels(summary[key]) for key in ("levels_before", "levels_after"))
        parts.append(_title(f"Drift of {version}: {alarm}; windows before the shift: {', after: '.join(levels)}"))
        if summary["moved"]:
            table = Table("Top drifted features", "PSI before", "PSI after")
            for row in summary["moved"]:
                table.add_row(row["feature"], _figure(row["before"]), _figure(row["after"]))
            parts.append(table)
    return parts


def _levels(counts: dict[str, int]) -> str:
    return " and ".join(f"{count} {level}" for level, count in counts.items()) or "none"


def _title(text: str) -> Text:
    return Text(text, "bold")


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
