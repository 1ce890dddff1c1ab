"""Commands run from an installed wheel, in a directory that has nothing of this repository."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import yaml

from tests.support.bundles import make_bundle
from tools.paths import PROJECT
from tools.stack.flink_client import newest_wheel
from training.promote import main as promote
from udfs.contracts.outputs import Session

pytestmark = pytest.mark.slow  # each test starts Python with all libraries

#: Modules that only have to print their help here: they need a broker or serve until they are stopped.
WITH_HELP = (
    "dashboard",
    "jobs.archive_clicks",
    "jobs.measure_outcomes",
    "jobs.measure_sessions",
    "jobs.ops.capacity",
    "jobs.ops.doctor",
    "jobs.ops.peek",
    "jobs.ops.replay",
    "jobs.ops.requeue",
    "jobs.ops.topics",
    "jobs.publish_population",
    "jobs.score_clicks",
    "jobs.watch_drift",
    "jobs.watch_experiments",
    "training.remote_bundle",
)
QUICK = (
    *("model=xgboost", "repeats=0", "folds=2", "rounds=3", "prune=false", "compare=[]", "threads=1"),
    "features=[events_30m, value, country]",
)

#: Prints the exit code, output and errors of `python -m MODULE --help` for each module, as JSON. One process has to
#: import the libraries once.
HELP_OF_EACH = """
import contextlib, io, json, runpy, sys
found = {}
for module in sys.argv[1:]:
    sys.argv = [module, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as end:
            code = end.code
    found[module] = [code or 0, out.getvalue(), err.getvalue()]
print(json.dumps(found))
"""


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """Where the wheel is installed, without its dependencies: those are here."""
    directory = tmp_path_factory.mktemp("site")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
    subprocess.run([*install, "--target", str(directory), str(newest_wheel())], check=True)
    return directory


@pytest.fixture
def python(site, tmp_path):
    """Run Python with the wheel in an empty directory."""
    empty = tmp_path / "empty"
    empty.mkdir()

    def run_python(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-P", *arguments]  # -P: the working directory is no source of modules
        environment = {**os.environ, "PYTHONPATH": str(site)}
        return subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, check=False)

    return run_python


@pytest.fixture
def run(python):
    """Run a module of the wheel in an empty directory."""
    return lambda module, *arguments: python("-m", module, *arguments)


@pytest.fixture
def conf(tmp_path) -> Path:
    """A copy of the settings, as a release has it."""
    return Path(shutil.copytree(PROJECT / "conf", tmp_path / "release" / "conf"))


def test_each_command_prints_its_help(python):
    ran = python("-c", HELP_OF_EACH, *WITH_HELP)
    assert (ran.returncode, ran.stderr) == (0, "")
    for module, (code, out, err) in json.loads(ran.stdout).items():
        assert (module, code, err) == (module, 0, "")
        assert f"{module} [OPTIONS]" in out
        assert "--help" in out


def test_features_are_listed(run):
    ran = run("intent.features")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "lifetime_events" in ran.stdout


def test_clicks_are_simulated_and_a_model_is_trained_for_a_label_beside_the_settings(run, conf, tmp_path):
    clicks, bundle = tmp_path / "clicks", tmp_path / "model"
    assert run("training.simulate", "--users", "300", "--hours", "48", "--out", str(clicks)).returncode == 0
    settings = [part for setting in QUICK for part in ("--set", setting)]
    command = ["--clicks", str(clicks / "clicks.jsonl"), "--label", "deep_visit", "--out", str(bundle)]
    ran = run("training.train", *command, "--conf", str(conf / "training.yaml"), *settings)
    assert ran.returncode == 0, ran.stderr
    assert (bundle / "report.html").exists()
    assert json.loads((bundle / "manifest.json").read_text())["label"]["page_views"] == 5


def test_the_command_of_the_retraining_manifest_gets_past_its_settings(run, conf, tmp_path):
    (job,) = (
        one
        for one in yaml.safe_load_all((conf / "kubernetes" / "retrain.yaml").read_text())
        if "spec" in one and one["kind"] == "CronJob"
    )
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    python, dash_m, module = container["command"]
    assert (python, dash_m) == ("python", "-m")
    arguments = [argument.replace("/opt/intent", str(conf.parent)) for argument in container["args"]]
    registry = conf.parent / "registry"
    bundle = make_bundle(tmp_path / "models", "v1")
    for command in (["stage", str(bundle)], ["start", "v1", "--champion", "--why", "first"]):
        assert promote([*command, "--registry", str(registry)]) == 0
    ran = run(module, *arguments)
    assert ran.returncode == 2
    assert f"{conf.parent}/archive/topic=clicks: " in ran.stderr  # the settings were read: what is missing is data
    ran = run(module, *arguments, "--set", "ramping.auto=true")
    assert f"{conf.parent}/archive/topic=clicks: " in ran.stderr


def test_a_ramp_is_judged_by_the_kpis_beside_the_settings(run, conf, tmp_path):
    registry, rollout = tmp_path / "registry", tmp_path / "rollout.yaml"
    steps = [{"share": 0.01, "guardrails": {"conversion_rate": 0.02}}, {"share": 0.2}]
    rollout.write_text(json.dumps({"salt": "s", "champion": "v1", "steps": steps}))
    sessions = tmp_path / "sessions.jsonl"
    sessions.write_text(session("ada") + session("bob"))
    for command in (
        ["stage", str(make_bundle(tmp_path / "models", "v1"))],
        ["stage", str(make_bundle(tmp_path / "models", "v2"))],
        ["apply", str(rollout), "--why", "first"],
        ["start", "v2", "--at-most", "0.5", "--why", "try it"],
    ):
        assert promote([*command, "--registry", str(registry)]) == 0
    ran = run(
        *("training.promote", "ramp", "v2", "--registry", str(registry), "--why", "on", "--by", "me"),
        *("--sessions", str(sessions), "--conf", str(conf / "retraining.yaml")),
    )
    assert ran.returncode == 2
    assert "conversion_rate has no data (the treatment has no sessions)" in ran.stderr


def test_an_experiment_is_reported_with_the_kpis_that_are_named(run, conf, tmp_path):
    sessions = tmp_path / "sessions.jsonl"
    users = [(f"{arm}-{number}", arm) for arm in ("champion", "challenger") for number in range(20)]
    sessions.write_text("".join(session(user, arm) for user, arm in users))
    out = tmp_path / "report"
    named = ["--kpis", str(conf / "kpis.yaml"), "--start", "2100-01-01T00:00:00Z"]
    named += ["--shares", "challenger=0.5", "champion=0.5"]
    ran = run("training.experiment", "report", "--sessions", str(sessions), *named, "--out", str(out))
    assert ran.returncode == 0, ran.stderr
    assert (out / "report.html").exists()


def session(user: str, arm: str = "champion") -> str:
    """A session that ends in 2100, as a line of JSON."""
    counts = {field.name: 1 for field in msgspec.structs.fields(Session) if field.required}
    named = {"user_id": user, "arm": arm, "model_version": "v1", "started_at": 4_102_444_800_000}
    return json.dumps(counts | named | {"ended_at": 4_102_444_860_000}) + "\n"
