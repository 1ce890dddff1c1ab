import json
import os
import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from hashlib import sha256
from itertools import count
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tests.support.bundles import files_of, make_bundle
from tests.support.ledger_writer import write_ten
from training.rollout.ledger import LostRace, append, next_entry, upload_bundle
from udfs.models.backends import Scorer
from udfs.models.bundle import EXPORT_FILE, XGBOOST_FILE, BundleError, check_scores, directory_files, load_bundle
from udfs.rollout.plan import Rollout, RolloutError
from udfs.rollout.registry import Registry, RegistryError, decode_entry, seal, unseal

_NAMES = count()


@pytest.fixture(params=["path", "file", "memory"])
def uri(request, tmp_path) -> str:
    if request.param == "memory":
        return f"memory://registry-{next(_NAMES)}"
    directory = tmp_path / "registry"
    return str(directory) if request.param == "path" else f"file://{directory}"


@pytest.fixture
def local(tmp_path) -> Path:
    """A registry in a directory, two changes old."""
    registry = Registry(str(tmp_path / "registry"))
    stage(registry, make_bundle(tmp_path, "v1"))
    serve(registry, "v1")
    serve(registry, "v2")
    return tmp_path / "registry"


def serve(registry: Registry, champion: str) -> None:
    append(
        registry,
        next_entry(registry),
        Rollout(salt="s", champion=champion),
        by="me",
        command=("start", champion),
        why="a test",
    )


def stage(registry: Registry, directory: Path) -> bool:
    return upload_bundle(registry, directory_files(directory))


def champion(registry: Registry) -> tuple[int, str]:
    number, rollout = registry.rollout()
    return number, rollout.champion


# What serves


def test_the_newest_change_serves(uri):
    serve(Registry(uri), "v1")
    reader = Registry(uri)
    assert champion(reader) == (1, "v1")
    serve(Registry(uri), "v2")
    assert champion(reader) == (2, "v2")


def test_a_registry_without_changes_has_nothing_that_serves(uri):
    with pytest.raises(RegistryError, match="ledger: no entry"):
        Registry(uri).rollout()


def test_an_entry_says_who_when_what_and_why(uri):
    registry = Registry(uri)
    rollout = Rollout(salt="s", champion="v1")
    written = append(registry, 1, rollout, by="me@here", command=("start", "v1"), why="the first", forced=True)
    assert Registry(uri).entry(1) == written
    assert (written.by, written.command, written.why, written.forced) == ("me@here", ("start", "v1"), "the first", True)
    assert written.at.utcoffset().total_seconds() == 0


@pytest.mark.parametrize("url", ["nosuchthing://models", "memory://x::y"])
def test_a_url_that_nothing_can_read_is_refused(url):
    with pytest.raises(RegistryError) as caught:
        Registry(url).rollout()
    assert "\n" not in str(caught.value)


# Chaos in the ledger


def entry_path(registry: Path, number: int) -> Path:
    return registry / "ledger" / f"{number:08d}.json"


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.99])
def test_an_entry_that_is_half_written_is_passed_over_and_uses_up_its_number(local, kept):
    reader = Registry(str(local))
    assert champion(reader) == (2, "v2")
    whole = entry_path(local, 2).read_bytes()
    entry_path(local, 3).write_bytes(whole[: int(kept * len(whole))])
    assert champion(reader) == champion(Registry(str(local))) == (2, "v2")
    serve(Registry(str(local)), "v3")
    assert champion(reader) == champion(Registry(str(local))) == (4, "v3")


def test_an_entry_serves_from_when_it_is_whole(local):
    reader = Registry(str(local))
    serve(Registry(str(local)), "v3")
    whole = entry_path(local, 3).read_bytes()
    entry_path(local, 3).write_bytes(whole[:-20])
    assert champion(reader) == (2, "v2")
    entry_path(local, 3).write_bytes(whole)
    assert champion(reader) == (3, "v3")


@pytest.mark.parametrize("position", [15, 90, 150, 250])
def test_a_changed_entry_is_not_whole(local, position):
    content = bytearray(entry_path(local, 2).read_bytes())
    content[position] ^= 1
    entry_path(local, 2).write_bytes(content)
    assert champion(Registry(str(local))) == (1, "v1")


def test_an_entry_that_is_nested_too_deeply_is_not_whole_or_cannot_be_used(local):
    nested = b'{"a":' * 20_000
    entry_path(local, 3).write_bytes(nested)
    assert champion(Registry(str(local))) == (2, "v2")
    with pytest.raises(RolloutError, match="recursion"):
        decode_entry(nested, 3)


def rewrite(path: Path, **changes) -> None:
    """Another whole entry in its place."""
    path.write_bytes(seal(json.dumps(json.loads(unseal(path.read_bytes())) | changes).encode()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2, "more": 1}, "format is 2, this code reads 1"),
        ({"more": 1}, "Object contains unknown field `more`"),
        ({"two\nlines": 1}, "Object contains unknown field `two lines`"),
        ({"number": 9}, "number is 9, expected 2"),
        ({"rollout": {"salt": "s"}}, "missing required field `champion`"),
        ({"rollout": {"salt": "s", "champion": "v", "rule": {"all": ["nose"]}}}, "expected FEATURE OPERATOR VALUE"),
    ],
)
def test_a_whole_entry_that_this_code_cannot_use_is_an_error_and_not_passed_over(local, changes, message):
    rewrite(entry_path(local, 2), **changes)
    with pytest.raises(RegistryError, match=message) as caught:
        Registry(str(local)).rollout()
    assert "00000002.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_ledger_that_vanishes_is_an_error_until_it_is_back(local):
    reader = Registry(str(local))
    assert champion(reader) == (2, "v2")
    local.rename(local.parent / "moved")
    with pytest.raises(RegistryError, match="entry 2, which serves, is gone"):
        reader.rollout()
    (local.parent / "moved").rename(local)
    assert champion(reader) == (2, "v2")


def test_an_older_copy_of_the_ledger_does_not_bring_back_an_older_model(local):
    reader = Registry(str(local))
    assert champion(reader) == (2, "v2")
    entry_path(local, 2).unlink()
    with pytest.raises(RegistryError, match="entry 2, which serves, is gone"):
        reader.rollout()


def test_what_else_lies_in_the_ledger_is_no_entry(local):
    (local / "ledger" / ".abc.unfinished").write_text("{")
    (local / "ledger" / "notes.txt").write_text("")
    assert Registry(str(local)).numbers() == [1, 2]


def test_a_file_system_that_fails_is_an_error_of_the_registry(monkeypatch):
    registry = Registry("memory://fails")

    def fail(*arguments, **options):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(MemoryFileSystem, "ls", fail)
    with pytest.raises(RegistryError, match="ledger cannot be read: no route to host"):
        registry.rollout()


# Two writers


def test_of_two_writers_one_gets_a_clear_error(uri):
    registry = Registry(uri)
    number = next_entry(registry)
    serve(Registry(uri), "v1")
    with pytest.raises(LostRace, match="someone else wrote entry 1 in the meantime"):
        append(registry, number, Rollout(salt="s", champion="v2"), by="me", command=(), why="late")
    assert champion(registry) == (1, "v1")


@pytest.mark.parametrize("pool", ["threads", pytest.param("processes", marks=pytest.mark.slow)])
def test_writers_at_once_lose_no_change_and_never_share_a_number(tmp_path, pool):
    uri = str(tmp_path / "registry")
    jobs = [(uri, f"writer-{number}") for number in range(3)]
    if pool == "threads":
        with ThreadPoolExecutor(3) as threads:
            won = list(threads.map(write_ten, jobs))
    else:
        # Not forked: a copy of a process that has threads can wait for ever for a lock that one of them held.
        with ProcessPoolExecutor(3, get_context("spawn")) as processes:
            won = list(processes.map(write_ten, jobs))
    assert sorted(number for numbers in won for number in numbers) == list(range(1, 31))
    registry = Registry(uri)
    for (_, writer), numbers in zip(jobs, won):
        assert {registry.entry(number).by for number in numbers} == {writer}
    assert {path.suffix for path in (tmp_path / "registry" / "ledger").iterdir()} == {".json"}


# Bundles


def test_a_staged_bundle_comes_back_as_it_was_made(uri, tmp_path):
    registry = Registry(uri)
    directory = make_bundle(tmp_path, "v1")
    assert stage(registry, directory)
    found, made = Registry(uri).bundle("v1", 64), load_bundle(directory, 64)
    assert registry.versions() == ["v1"]
    assert (found.manifest, found.model, found.export) == (made.manifest, made.model, made.export)
    assert found.warm_up.features.tobytes() == made.warm_up.features.tobytes()


def test_a_staged_bundle_is_staged_once(uri, tmp_path):
    registry = Registry(uri)
    directory = make_bundle(tmp_path, "v1")
    assert stage(registry, directory)
    assert not stage(registry, directory)
    with pytest.raises(BundleError, match="version v1 is already staged with different content"):
        stage(registry, make_bundle(tmp_path / "other", "v1", auc=0.9))


def test_an_upload_that_was_not_finished_is_no_bundle_and_can_be_repeated(uri, tmp_path, monkeypatch):
    registry = Registry(uri)
    directory = make_bundle(tmp_path, "v1")
    pipe = type(registry.files).pipe_file

    def fail(files, path, content, **options):
        if path.endswith(EXPORT_FILE):
            pipe(files, path, content[:100])
            raise ConnectionError("gone")
        pipe(files, path, content, **options)

    monkeypatch.setattr(type(registry.files), "pipe_file", fail)
    with pytest.raises(ConnectionError):
        stage(registry, directory)
    monkeypatch.setattr(type(registry.files), "pipe_file", pipe)
    assert registry.versions() == []
    with pytest.raises(BundleError, match="bundles/v1: no such bundle is staged"):
        registry.bundle("v1", 64)
    assert stage(registry, directory)
    assert registry.bundle("v1", 64).export == files_of(1)[EXPORT_FILE]


def test_a_bundle_tells_what_serving_needs_and_travels(local):
    bundle = pickle.loads(pickle.dumps(Registry(str(local)).bundle("v1", 64)))
    assert bundle.certified_limit == 1e-5
    assert bundle.warm_up.features.dtype == bundle.warm_up.scores.dtype == np.float32
    scores = Scorer(bundle).predict(bundle.warm_up.features)
    check_scores(bundle, scores, 0)
    with pytest.raises(BundleError, match=r"v1: model.ubj scores row 3 of warm_up.json .*, expected .* within 1e-06"):
        check_scores(bundle, scores + np.float32(2e-6) * (np.arange(len(scores)) == 3), 1e-6)
    with pytest.raises(BundleError, match="scores row 5 of warm_up.json nan"):
        check_scores(bundle, np.where(np.arange(len(scores)) == 5, np.nan, scores), 1e-6)


def damage(bundle: Path, **manifest) -> None:
    path = bundle / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | manifest))


def truncate(bundle: Path) -> None:
    path = bundle / XGBOOST_FILE
    path.write_bytes(path.read_bytes()[:-50])


def replaced(bundle: Path, name: str, content: bytes) -> None:
    (bundle / name).write_bytes(content)
    files = json.loads((bundle / "manifest.json").read_text())["files"]
    damage(bundle, files=files | {name: sha256(content).hexdigest()})


@pytest.mark.parametrize(
    ("chaos", "message"),
    [
        (truncate, "model.ubj: sha256 is "),
        (lambda bundle: (bundle / EXPORT_FILE).write_bytes(b"x"), "model.onnx: sha256 is "),
        (
            lambda bundle: os.truncate(bundle / XGBOOST_FILE, 2 << 30),
            "model.ubj: cannot be read: it has 2048 MiB, a file may have 1024 MiB",
        ),
        (lambda bundle: (bundle / EXPORT_FILE).unlink(), "model.onnx: cannot be read: No such file or directory"),
        (lambda bundle: damage(bundle, features=["nose"]), "manifest.json: unknown feature 'nose'"),
        (lambda bundle: damage(bundle, feature_schema_hash="0" * 64), "manifest.json: feature_schema_hash is 000"),
        (lambda bundle: damage(bundle, format=3), "manifest.json: format is 3, this code reads 2"),
        (lambda bundle: damage(bundle, new_in_2=1), "manifest.json: not a valid manifest: "),
        (lambda bundle: damage(bundle, version="v9"), "manifest.json: version is 'v9', expected 'v1'"),
        (lambda bundle: (bundle / "manifest.json").write_text("{"), "manifest.json: not a valid manifest: "),
        (lambda bundle: replaced(bundle, "warm_up.json", b"{}"), "warm_up.json: not valid warm-up rows: "),
        (
            lambda bundle: replaced(bundle, "warm_up.json", b'{"features": ["value"], "rows": [], "scores": []}'),
            "warm_up.json: the features are not the manifest's",
        ),
        (shutil.rmtree, "v1: no such bundle is staged"),
        (lambda bundle: shutil.rmtree(bundle.parent), "v1: no such bundle is staged"),
    ],
)
def test_a_bundle_that_was_damaged_is_refused_and_the_ledger_still_serves(local, chaos, message):
    registry = Registry(str(local))
    chaos(local / "bundles" / "v1")
    with pytest.raises(BundleError) as caught:
        registry.bundle("v1", 64)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert champion(registry) == (2, "v2")


def test_another_history_length_than_the_jobs_is_refused(local):
    with pytest.raises(BundleError, match="history_length is 64, the job keeps 32"):
        Registry(str(local)).bundle("v1", 32)


@pytest.mark.parametrize("version", ["../ledger", "", "a/b"])
def test_a_version_that_is_no_name_is_refused(local, version):
    with pytest.raises(BundleError, match="version must be 1 to 64 letters"):
        Registry(str(local)).bundle(version, 64)
