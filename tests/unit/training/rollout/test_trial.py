"""The trial of a bundle: a model that takes too much time or memory is refused, and nothing else ends."""

import pytest

from tests.support import poison
from tests.support.bundles import NAMES, make_bundle
from training import promote
from training.rollout import trial
from training.rollout.admission import admit
from training.rollout.admission_settings import Admission, AdmissionError, load_admission
from udfs.models.bundle import EXPORT_FILE, BundleError, directory_files

STRICT = Admission(time="1 s", memory_mib=256)


@pytest.fixture(autouse=True)
def trial_here() -> None:
    """Not in this module: trials are in processes."""


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, bytes]:
    return directory_files(make_bundle(tmp_path_factory.mktemp("bundles"), "v1"))


def poisoned(directory, export: bytes) -> dict[str, bytes]:
    return directory_files(make_bundle(directory, "poison", changes={EXPORT_FILE: export}))


def refusal(*arguments) -> str:
    with pytest.raises(BundleError) as refused:
        trial.try_bundle(*arguments)
    return str(refused.value)


def test_a_model_within_the_bounds_is_admitted(files):
    assert admit(files, "v1", 64).version == "v1"


def test_a_model_that_never_ends_is_refused_by_its_processor_time(tmp_path):
    with pytest.raises(BundleError) as refused:
        admit(poisoned(tmp_path, poison.endless(len(NAMES))), "v1", 64, STRICT)
    assert str(refused.value) == (
        "v1: to load and try the model takes more processor time than allowed; the limit is 1 s (admission.time)"
    )


def test_a_model_that_takes_all_memory_is_refused(tmp_path, capsys):
    (tmp_path / "retraining.yaml").write_text("admission: {memory_mib: 256}")
    poisoned(tmp_path, poison.huge(len(NAMES)))
    conf = ["--conf", str(tmp_path / "retraining.yaml")]
    assert promote.main(["stage", str(tmp_path / "poison"), "--registry", str(tmp_path / "registry"), *conf]) == 2
    assert "takes more memory than allowed; the limit is 256 MiB (admission.memory_mib)" in capsys.readouterr().err
    assert not (tmp_path / "registry").exists()


@pytest.mark.parametrize(
    ("check", "problem"),
    [
        (poison.allocate, "takes more memory than allowed; the limit is 256 MiB"),
        (poison.end_process, "ends the process (SIGABRT); it may take 256 MiB of memory"),
    ],
)
def test_however_a_trial_ends_the_reason_is_told(files, check, problem):
    assert problem in refusal(files, "v1", 64, STRICT, check)


def test_a_model_that_waits_is_refused_by_the_wall_clock(files, monkeypatch):
    monkeypatch.setattr(trial, "START_S", 0.0)
    monkeypatch.setattr(trial, "WALL_CLOCK_FACTOR", 0.1)
    assert "was not loaded and tried within 0.1 s: it waits or loops" in refusal(
        files, "v1", 64, STRICT, poison.wait_forever
    )


def test_what_the_check_and_the_bundle_refuse_is_refused_in_the_same_words(files):
    assert "history_length is 64, the job keeps 32" in refusal(files, "v1", 32, STRICT, poison.accept)
    assert "model.ubj: sha256 is" in refusal(files | {"model.ubj": b"other"}, "v1", 64, STRICT, poison.accept)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("admission: {time: 10}", "key admission.time: Expected `str`"),
        ("admission: {time: soon}", "key admission.time: expected a number and a unit"),
        ("admission: {memory_mib: 1}", "key admission.memory_mib: Expected `int` >= 64"),
        ("admission: {seconds: 1}", "key admission.seconds: unknown key"),
    ],
)
def test_a_bound_that_is_none_is_refused(tmp_path, text, problem):
    (tmp_path / "retraining.yaml").write_text(text)
    with pytest.raises(AdmissionError, match=f"retraining.yaml: {problem}"):
        load_admission(tmp_path / "retraining.yaml")
