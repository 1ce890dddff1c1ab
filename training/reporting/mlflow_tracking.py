"""Recording of a training as a run in MLflow, if MLFLOW_TRACKING_URI is set."""

import os
from importlib.util import find_spec
from pathlib import Path

import msgspec

from training.bundles.trainer import TrainedModel
from training.modeling.settings import Training
from udfs.config.text import one_line

EXPERIMENT = "purchase-intent"


class TrackingError(RuntimeError):
    """A run that could not be recorded. The message is one line."""


def is_tracked() -> bool:
    return bool(os.environ.get("MLFLOW_TRACKING_URI"))


def check_tracking() -> None:
    """Check before a training that its run can be recorded, if it is to be. Raises TrackingError."""
    if is_tracked() and find_spec("mlflow") is None:
        raise TrackingError(
            "MLFLOW_TRACKING_URI is set, but MLflow is not installed: pip install 'mlflow-skinny>=3,<4', or unset it"
        )


def track(bundle: Path, trained: TrainedModel, training: Training) -> str:
    """Record settings, metrics and the bundle's files as a run; returns a line that names it. Raises TrackingError."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # or MLflow sends usage data for each call
    import mlflow

    manifest = trained.manifest
    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    try:
        mlflow.set_experiment(experiment)
        with mlflow.start_run(run_name=manifest.version) as run:
            mlflow.set_tags({"label": str(manifest.label), "version": manifest.version})
            mlflow.log_params(_parameters(trained, training))
            mlflow.log_metrics(manifest.metrics)
            mlflow.log_artifacts(str(bundle), "bundle")
    except Exception as error:  # of MLflow, or of the library of its store
        raise TrackingError(f"MLflow: {type(error).__name__}: {one_line(error)}") from error
    return f"MLflow run {run.info.run_id} of experiment {experiment}"


def _parameters(trained: TrainedModel, training: Training) -> dict[str, object]:
    """The settings, and the parameters of the model as model.*."""
    settings = {name: value for name, value in msgspec.to_builtins(training).items() if name != "parameters"}
    parameters = trained.evaluation.parameters
    of_model = {f"model.{name}": value for name, value in parameters.items()}
    return {**settings, **of_model, "label": str(trained.manifest.label)}
