"""Provenance of a model: the time range of its data, the commit of the code, the versions of the libraries."""

import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version as installed
from pathlib import Path

import numpy as np

from udfs.models.bundle import TrainingWindow

LIBRARIES = ("xgboost-cpu", "lightgbm", "onnx", "onnxruntime", "numpy", "scikit-learn")


def window_of(time_ms: np.ndarray) -> TrainingWindow:
    """The window from the first to the last of the event times, int64[n]."""
    start, end = (datetime.fromtimestamp(int(time) / 1000, UTC) for time in (time_ms.min(), time_ms.max()))
    return TrainingWindow(start, end)


def git_commit() -> str | None:
    """The commit of the code, None outside a checkout."""
    try:
        process = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return process.stdout.strip() if process.returncode == 0 else None


@cache
def library_versions(*more: str) -> dict[str, str]:
    """The versions of the libraries that a model's bytes depend on; some kinds of models depend on `more`."""
    return {name: installed(name) for name in (*LIBRARIES, *more)}
