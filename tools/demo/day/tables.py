"""The figures of the demo's day for people."""

from rich.console import Group
from rich.table import Column, Table
from rich.text import Text


def report_tables(figures: dict) -> Group:
    """The figures for people."""
    parts = [*_model_table(figures["models"]), *_kpi_table(figures["kpis"])]
    return Group(*parts, *_experiment_table(figures["experiment"]), *_drift_tables(figures["drift"]))


def _model_table(models: list[dict]) -> list[Text | Table]:
    table = Table("model", "when", "scores", "promised", "bought", "AUC", "best possible")
    for row in models:
        rates = (f"{row[name]:.1%}" for name in ("mean_score", "positive_rate"))
        aucs = (_figure(row[name]) for name in ("auc", "best_possible_auc"))
        table.add_row(f"{row['model']} {row['role']}", row["when"], str(row["scores"]), *rates, *aucs)
    return [_title("Live scores and what came of them"), table]


def _kpi_table(kpis: dict[str, dict]) -> list[Text | Table]:
    arms = sorted({arm for values in kpis.values() for arm in values})
    table = Table("KPI", *arms)
    for name, values in kpis.items():
        table.add_row(name, *(_figure(values.get(arm)) for arm in arms))
    return [_title("KPIs by arm, since the challenger has its full share"), table]


def _experiment_table(experiment: dict | None) -> list[Text | Table]:
    if experiment is None:
        return [_title("Experiment: no record came")]
    users = ", ".join(f"{count} users of {arm}" for arm, count in experiment["users"].items())
    names = Column("KPI", no_wrap=True, min_width=max(len(effect["kpi"]) for effect in experiment["kpis"]))
    table = Table(names, "treatment", "baseline", "difference", "95 %", "told", "guardrail")
    for effect in experiment["kpis"]:
        values = (_figure(effect[name]) for name in ("treatment_value", "baseline_value", "difference"))
        told = "better" if effect["is_better"] else "worse" if effect["is_worse"] else "open"
        interval = f"{_figure(effect['low'])} to {_figure(effect['high'])}"
        table.add_row(effect["kpi"], *values, interval, told, effect["guardrail"] or "")
    return [_title(f"Experiment, {users}: {experiment['decision']}"), table]


def _drift_tables(drift: dict[str, dict]) -> list[Text | Table]:
    if not drift:
        return [_title("Drift: no record came")]
    parts = []
    for version, found in drift.items():
        minutes = found["alarm_after_minutes"]
        alarm = "no alarm after the shift" if minutes is None else f"alarm {minutes} min after the shift"
        levels = (_levels(found[key]) for key in ("levels_before", "levels_after"))
        parts.append(_title(f"Drift of {version}: {alarm}; windows before it {', after it '.join(levels)}"))
        if found["moved"]:
            table = Table("moved most", "PSI before", "PSI after")
            for row in found["moved"]:
                table.add_row(row["feature"], _figure(row["before"]), _figure(row["after"]))
            parts.append(table)
    return parts


def _levels(counts: dict[str, int]) -> str:
    return " and ".join(f"{count} {level}" for level, count in counts.items()) or "none"


def _title(text: str) -> Text:
    return Text(text, "bold")


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
