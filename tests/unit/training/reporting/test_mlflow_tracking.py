"""A training as a run in MLflow, in a database of its own; and what is left when it can't be recorded."""

import os
from unittest.mock import patch

import pytest
from msgspec.structs import replace

from tests.conftest import QUICK
from tests.support.shop import shop_examples
from training.bundles.trainer import train_model
from training.bundles.writer import write_bundle
from training.reporting import mlflow_tracking
from training.reporting.mlflow_tracking import TrackingError, check_tracking, is_tracked, track
from training.train import main
from udfs.models.bundle import load_bundle

pytestmark = pytest.mark.slow  # MLflow takes seconds to start, and makes a database


@pytest.fixture
def plain_environment(monkeypatch, tmp_path):
    """A working directory for what MLflow puts beside a database, and no patience with a server that is not there."""
    monkeypatch.chdir(tmp_path)
    with patch.dict(os.environ):  # MLflow writes into it, and workers of other tests would inherit that
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID"):
            os.environ.pop(name, None)
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # before it is imported, which the tests do themselves
        yield


@pytest.fixture(scope="module")
def trained():
    settings = replace(QUICK, features=("events_30m", "cart_adds_30m", "value", "country"))
    return train_model(shop_examples(), settings, version="v1")


@pytest.mark.usefixtures("plain_environment")
@pytest.mark.parametrize("experiment", [None, "another"])
def test_a_training_is_a_run_with_its_settings_metrics_and_files(tmp_path, monkeypatch, trained, experiment):
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'runs.db'}")
    if experiment:
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", experiment)
    write_bundle(tmp_path / "bundle", trained.manifest, trained.files)
    told = track(tmp_path / "bundle", trained, QUICK)
    client = mlflow.MlflowClient()
    found = client.get_experiment_by_name(experiment or "purchase-intent")
    (run,) = client.search_runs([found.experiment_id])
    assert told == f"MLflow run {run.info.run_id} of experiment {found.name}"
    assert (run.info.run_name, run.info.status, run.data.tags["version"]) == ("v1", "FINISHED", "v1")
    assert run.data.metrics == trained.manifest.metrics
    assert (run.data.params["folds"], run.data.params["label"]) == ("2", str(trained.manifest.label))
    assert float(run.data.params["model.max_depth"]) == trained.evaluation.parameters["max_depth"]
    kept = client.download_artifacts(run.info.run_id, "bundle", str(tmp_path))
    assert load_bundle(tmp_path / kept, 64).manifest == trained.manifest


@pytest.mark.usefixtures("plain_environment")
def test_a_server_that_does_not_answer_costs_the_run_and_not_the_bundle(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    quick = ["model=xgboost", "repeats=0", "rounds=5", "folds=2", "prune=false", "compare=[]", "threads=1"]
    quick += ["features=[events_30m, cart_adds_30m, value, country]"]
    settings = [part for setting in quick for part in ("--set", setting)]
    bundle = tmp_path / "bundle"
    assert main(["--simulate", "--users", "400", *settings, "--out", str(bundle)]) == 1
    (told,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("train: "))
    assert told.startswith("train: MLflow: MlflowException: ")
    assert told.endswith(f"; the bundle {bundle} is complete")
    assert load_bundle(bundle, 64)


@pytest.mark.usefixtures("plain_environment")
def test_without_the_library_a_wanted_run_is_refused_before_the_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(mlflow_tracking, "find_spec", lambda name: None)
    check_tracking()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(TrackingError, match="MLFLOW_TRACKING_URI is set, but MLflow is not installed"):
        check_tracking()
    assert main(["--simulate", "--out", str(tmp_path / "bundle")]) == 2
    assert capsys.readouterr().out == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("plain_environment")
def test_nothing_is_tracked_unless_it_is_wanted():
    assert not is_tracked()
