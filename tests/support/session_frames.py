"""Session records of experiments, as data frames."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from udfs.measurement.design import Experiment, ExperimentArm, Stretch

COUNTS = (
    *("events", "pages", "view_promotions", "select_promotions", "add_to_carts", "begin_checkouts", "form_starts"),
    *("form_submits", "purchases"),
)
VERSION_OF = {"challenger": "v2", "champion": "v1", "control": None}


def frame(rows: Iterable[dict]) -> pd.DataFrame:
    """Sessions of rows that give user_id and arm, and any other fields; the rest is 0."""
    rows = pd.DataFrame(list(rows))
    defaults = dict.fromkeys((*COUNTS, "started_at"), 0) | {"revenue": 0.0}
    for name, value in defaults.items():
        rows[name] = rows[name].fillna(value) if name in rows else value
    if "model_version" not in rows:
        rows["model_version"] = rows["arm"].map(VERSION_OF)
    rows["ended_at"] = rows["started_at"] + 1_000
    return rows


def drawn(
    rng, users: int, arm: str, rate: float, prefix: str = "", started_at: int = 0, price: float = 20.0
) -> pd.DataFrame:
    """Sessions, one or more for each user, in which an arm buys at a rate."""
    sessions = 1 + rng.poisson(1, users)
    total = int(sessions.sum())
    bought = rng.random(total) < rate
    rows = pd.DataFrame({"user_id": np.repeat([f"{prefix}{arm}{user}" for user in range(users)], sessions), "arm": arm})
    return frame(
        rows.assign(
            started_at=started_at + np.arange(total) % 1_000,
            events=5,
            pages=rng.integers(1, 5, total),
            purchases=bought.astype(int),
            revenue=price * bought,
        ).to_dict("records")
    )


def experiment(
    *stretches: Stretch,
    treatment: tuple[str, str | None] = ("challenger", "v2"),
    baseline: tuple[str, str | None] = ("champion", "v1"),
    history_until_ms: int | None = None,
) -> Experiment:
    """An experiment, by default one with equal shares that has always run."""
    stretches = stretches or (Stretch(0, None, 0.5, 0.5),)
    until = stretches[0].start_ms if history_until_ms is None else history_until_ms
    return Experiment(ExperimentArm(*treatment), ExperimentArm(*baseline), stretches, until)
