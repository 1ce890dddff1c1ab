"""Models behind the Open Inference Protocol, asked over HTTP; and what stands in for them when they fail."""

import json
import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.support.bundles import NAMES, files_of, make_bundle
from tests.support.oip_server import OipServer
from training import promote, remote_bundle
from udfs.contracts.packed_events import EVENT
from udfs.models.backends import Scorer
from udfs.models.bundle import WARM_UP_FILE, XGBOOST_FILE, BundleError, load_bundle
from udfs.models.circuit_breaker import FAILURES
from udfs.models.remote import (
    RETRIES_SAVED,
    Endpoint,
    RemoteError,
    RemoteScorer,
    RetryBudget,
    decode_answer,
    encode_request,
)
from udfs.rollout.registry import Registry
from udfs.serving.bootstrap import follow, serving_bundle, serving_registry
from udfs.serving.deployment import Options

ROWS = np.random.default_rng(1).random((25, len(NAMES)), np.float32)
ROWS[::4, 1] = np.nan
PATIENT_MS = 20_000


def endpoint_of(server: OipServer, model: str = "m", **fields) -> Endpoint:
    fields = {"column": 1, "timeout_ms": PATIENT_MS} | fields
    return Endpoint(url=f"http://127.0.0.1:{server.port}", model=model, **fields)


def running_server(directory: Path) -> Iterator[OipServer]:
    (directory / "model.ubj").write_bytes(files_of(1)[XGBOOST_FILE])
    running = OipServer(directory / "model.ubj")
    yield running
    running.stop()


@pytest.fixture
def server(tmp_path) -> Iterator[OipServer]:
    """A server of one test, which may count its requests and stop it."""
    yield from running_server(tmp_path)


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory) -> Iterator[OipServer]:
    yield from running_server(tmp_path_factory.mktemp("server"))


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    """Repeat requests at once: the pauses of a patient endpoint add up to seconds."""
    monkeypatch.setattr("udfs.models.remote._FIRST_PAUSE_S", 0.0)


@pytest.fixture
def local(tmp_path) -> Path:
    return make_bundle(tmp_path, "local")


@pytest.mark.parametrize("model", ["m", "json"])
def test_a_remote_model_gives_the_scores_that_it_gives_here(shared_server, local, model):
    expected = Scorer(load_bundle(local, 64)).predict(ROWS)
    found = RemoteScorer(endpoint_of(shared_server, model)).predict(ROWS)
    assert found.tobytes() == expected.tobytes()


def test_no_request_has_more_rows_than_the_endpoint_wants(server):
    RemoteScorer(endpoint_of(server, max_batch=10)).predict(ROWS)
    assert server.seen["rows"] == [10, 10, 5]


def test_a_busy_server_is_asked_again(server):
    assert len(RemoteScorer(endpoint_of(server, "busy")).predict(ROWS)) == len(ROWS)
    assert server.seen["requests"] == 2


@pytest.mark.parametrize(
    ("model", "fields", "message"),
    [
        ("slow", {"timeout_ms": 50}, "within 50 ms"),
        ("page", {}, "not an answer of the protocol (Expecting value: line 1 column 1 (char 0)): <html>login</html>"),
        ("missing", {}, 'HTTP status 404: {"error": "no such model"}'),
        (
            "m",
            {"column": None},
            "output probabilities has shape [25, 2]: set `column` in endpoint.json to the one with the score",
        ),
        ("m", {"column": 2}, "output probabilities has 2 columns: column is 2"),
        ("nan", {}, "output probabilities has values outside [0, 1], such as [nan]"),
        ("m", {"token_env": "NO_SUCH_TOKEN"}, "environment variable NO_SUCH_TOKEN, with its token, is not set"),
    ],
)
def test_an_answer_that_cannot_be_used_is_an_error_that_names_the_endpoint(shared_server, model, fields, message):
    endpoint = endpoint_of(shared_server, model, **fields)
    with pytest.raises(RemoteError) as caught:
        RemoteScorer(endpoint).predict(ROWS)
    assert str(caught.value).startswith(f"{endpoint.address}: ")
    assert message in str(caught.value)


def test_the_line_break_behind_a_token_is_no_part_of_it(server, monkeypatch):
    monkeypatch.setenv("TOKEN", "s3cret\n")
    assert len(RemoteScorer(endpoint_of(server, token_env="TOKEN")).predict(ROWS)) == len(ROWS)


@pytest.mark.parametrize("token", ["s3\ncret", "s3cret\u2026"])
def test_a_token_that_no_header_holds_is_an_error_that_does_not_show_it(shared_server, monkeypatch, token):
    monkeypatch.setenv("TOKEN", token)
    with pytest.raises(RemoteError, match="environment variable TOKEN has characters") as caught:
        RemoteScorer(endpoint_of(shared_server, token_env="TOKEN")).predict(ROWS)
    assert "s3" not in str(caught.value)


def test_retries_are_a_tenth_of_the_requests_after_those_that_were_saved_up():
    budget = RetryBudget()
    assert sum(budget.spend() for _ in range(100)) == RETRIES_SAVED
    for _ in range(55):
        budget.earn()
    assert sum(budget.spend() for _ in range(100)) == 5


@given(arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 4)), elements=st.floats(0, 1, width=32)))
def test_what_is_encoded_is_decoded(rows):
    endpoint = Endpoint(url="http://h", model="m", output="features", column=0)
    header, tensor = encode_request(endpoint, rows)
    answer = json.dumps({"outputs": json.loads(header)["inputs"]}).encode()
    found = decode_answer(endpoint, answer + tensor, str(len(answer)), len(rows))
    assert found.tobytes() == rows[:, 0].tobytes()


@pytest.mark.parametrize(
    "answer",
    [
        b"[]",
        b'{"outputs": [1]}',
        b'{"outputs": [{"name": "probabilities"}]}',
        b'{"outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [1], "parameters": null}]}',
        b'{"outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [1e999], "data": [1]}]}',
        b'{"outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [1], "data": [1%s]}]}' % (b"0" * 400),
        rb'{"outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [1], "data": ["\ud800\n"]}]}',
        b"[" * 100_000,
    ],
)
def test_an_answer_of_another_form_is_no_answer_of_the_protocol(answer):
    with pytest.raises(ValueError, match=r"^not an answer of the protocol") as caught:
        decode_answer(Endpoint(url="http://h", model="m"), answer, None, 1)
    assert "\n" not in str(caught.value).encode().decode()


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({"name": 5}, "no output is named probabilities, there are 5"),
        ({"name": "two\nlines"}, "no output is named probabilities, there are two lines"),
        ({"shape": [1, 10**30]}, "output probabilities has shape [1, 1" + "0" * 30 + "] and 1 values for 1 rows"),
        ({"data": [-1]}, "output probabilities has values outside [0, 1], such as [-1.]"),
        ({"data": [1e300]}, "output probabilities has values outside [0, 1], such as [inf]"),
    ],
)
def test_an_answer_without_a_probability_for_each_row_is_refused_by_rule_and_value(output, message):
    answer = {"name": "probabilities", "datatype": "FP64", "shape": [1], "data": [0.5]} | output
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        decode_answer(
            Endpoint(url="http://h", model="m", column=0), json.dumps({"outputs": [answer]}).encode(), None, 1
        )


def remote(server: OipServer, local: Path, directory: Path, model: str = "m") -> int:
    arguments = ["--url", f"http://127.0.0.1:{server.port}", "--model", model, "--column", "1", "--version", "remote"]
    return remote_bundle.main(
        [*arguments, "--timeout-ms", str(PATIENT_MS), "--features-of", str(local), "--out", str(directory)]
    )


def run(registry: str, *arguments: str) -> int:
    return promote.main([*arguments, "--registry", registry])


@pytest.fixture
def registry(server, local, tmp_path) -> str:
    """A local champion, and a remote model staged."""
    assert remote(server, local, tmp_path / "remote") == 0
    uri = str(tmp_path / "registry")
    for bundle in (local, tmp_path / "remote"):
        assert run(uri, "stage", str(bundle)) == 0
    return uri


def score(deployment):
    n = len(ROWS)
    users = [f"u{number}" for number in range(n)]
    return deployment.score(users, [bytes(EVENT.itemsize)] * n, np.ones(n, np.int64), np.zeros(n, np.int64), [None] * n)


def promoted(registry: str) -> None:
    assert run(registry, "start", "local", "--champion", "--why", "first") == 0
    assert run(registry, "start", "remote", "--at-most", "1", "--share", "1", "--force", "--why", "larger") == 0
    assert run(registry, "ramp", "remote", "--to-champion", "--why", "better") == 0


def test_the_last_local_champion_stands_in_while_a_remote_one_fails(registry, server):
    promoted(registry)
    poller = follow(serving_registry(registry, 64, Options(), poll_s=60))
    serving = poller.current
    answered = score(serving)
    assert set(answered.version) == {"remote"}
    server.stop()
    for batch in range(1, FAILURES + 2):
        found = score(serving)
        assert set(found.version) == {"local"}
        assert found.score.tobytes() == answered.score.tobytes()  # it is the same model
        assert serving.fallbacks == batch * len(ROWS)
    poller.stop()


def test_a_job_starts_while_its_remote_model_is_down(registry, server):
    promoted(registry)
    server.stop()
    poller = follow(serving_registry(registry, 64, Options(), poll_s=60))
    assert set(score(poller.current).version) == {"local"}
    poller.stop()


def test_a_remote_model_that_is_down_is_not_taken_over(registry, server):
    assert run(registry, "start", "local", "--champion", "--why", "first") == 0
    poller = follow(serving_registry(registry, 64, Options(), poll_s=60))
    assert run(registry, "start", "remote", "--at-most", "1", "--share", "1", "--force", "--why", "larger") == 0
    server.stop()
    poller.poll_once()
    assert (poller.number, poller.refused) == (1, 1)
    poller.stop()


def test_a_remote_model_can_not_be_the_first_champion(registry, capsys):
    assert run(registry, "start", "remote", "--champion", "--why", "first") == 2
    assert "it needs a local champion before it" in capsys.readouterr().err
    with pytest.raises(BundleError, match="a remote model needs a registry"):
        serving_bundle(Registry(registry).bundle("remote"), Options())


def test_a_remote_model_that_gives_other_scores_than_before_is_refused(registry, server, local, tmp_path, capsys):
    assert run(registry, "start", "local", "--champion", "--why", "first") == 0
    staged = tmp_path / "registry" / "bundles" / "remote"
    manifest = json.loads((staged / "manifest.json").read_text())
    endpoint = (staged / "endpoint.json").read_text().replace('"model": "m"', '"model": "wrong"')
    (staged / "endpoint.json").write_text(endpoint)
    manifest["files"]["endpoint.json"] = sha256(endpoint.encode()).hexdigest()
    (staged / "manifest.json").write_text(json.dumps(manifest))
    assert run(registry, "shadow", "remote", "--why", "to look at it") == 2
    assert re.search(rf"endpoint.json scores row \d+ of {WARM_UP_FILE}", capsys.readouterr().err)


def test_no_bundle_is_made_of_an_endpoint_that_gives_no_scores(shared_server, local, tmp_path, capsys):
    assert remote(shared_server, local, tmp_path / "remote", "missing") == 2
    assert "HTTP status 404" in capsys.readouterr().err
    assert not (tmp_path / "remote").exists()
