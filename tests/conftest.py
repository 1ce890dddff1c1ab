"""What tests of all kinds share: a directory for this run, and a small real model."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tools.paths import JARS, PROJECT
from tools.stack.cluster import flink_home
from training.bundles.trainer import train_model
from training.bundles.writer import write_bundle
from training.modeling.settings import Training
from training.simulation.clickstream import Simulation, simulate
from training.simulation.examples import simulated_examples

# JVMs of tests live for seconds or minutes: the optimising compiler would take cores from them and be done too late.
# Without it, a JVM reserves only 48 MB for compiled code. Flink's planner fills them, and the JVM then keeps looking
# for code to give up, which takes an eighth of the CPU time.
# What javac and the makers of Flink and Kafka have compiled need not be verified, which takes a sixth of a start.
os.environ["JDK_JAVA_OPTIONS"] = (
    "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:ReservedCodeCacheSize=240m"
    " -XX:+UnlockDiagnosticVMOptions -XX:-BytecodeVerificationRemote"
)

# How fast this machine is just now is no property of the code.
settings.register_profile("any-speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", settings.get_profile("any-speed"), max_examples=25)  # for make test-unit
settings.load_profile("any-speed")

#: One kind of model, without the choices that cost most of the time of a training.
QUICK = Training(
    model="xgboost",
    parameters={"teacher_share": 0.6},
    rounds=20,
    folds=2,
    repeats=0,
    prune=False,
    compare=(),
    threads=1,
)
BUILD = PROJECT / "build"
RUN_DIRECTORY = pytest.StashKey[Path]()


@pytest.fixture(scope="session")
def run_directory(request) -> Path:
    """A fresh directory under build/, so that runs at the same time don't meet."""
    BUILD.mkdir(exist_ok=True)
    directory = request.session.stash[RUN_DIRECTORY] = Path(tempfile.mkdtemp(prefix="test-", dir=BUILD))
    return directory


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """What passes leaves nothing behind; if a test fails, the logs of its process stay."""
    if exitstatus == pytest.ExitCode.OK and RUN_DIRECTORY in session.stash:
        shutil.rmtree(session.stash[RUN_DIRECTORY])


@pytest.fixture(scope="session")
def flink_libraries(run_directory) -> Iterator[Path]:
    """Flink's JARs and the job's, which PyFlink gives to the JVM of this process."""
    directory = run_directory / "flink-lib"
    directory.mkdir()
    for jar in (*(flink_home() / "lib").glob("*.jar"), *(JARS / "job").glob("*.jar")):
        (directory / jar.name).symlink_to(jar)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLINK_HOME", str(flink_home()))  # without it, PyFlink overwrites the other one
        patch.setenv("FLINK_LIB_DIR", str(directory))
        yield directory


@pytest.fixture(scope="session")
def bundle_directory(run_directory) -> Path:
    """A model of all features, trained for a few seconds."""
    stream = simulate(Simulation(users=1_000, hours=12, seed=5))
    trained = train_model(simulated_examples(stream), QUICK, version="test-model")
    directory = run_directory / "bundle"
    write_bundle(directory, trained.manifest, trained.files)
    return directory
