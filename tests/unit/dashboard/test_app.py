"""The dashboard's pages: they load nothing from elsewhere, let nothing from events run, and change nothing."""

import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from dashboard import app as app_module
from dashboard.__main__ import LOOPBACK, listen
from dashboard.panels import models as models_module
from dashboard.panels.models import ModelPanel
from dashboard.panels.state import SILENT_AFTER_MS, DashboardState
from dashboard.user.explanation import Contribution, Explanation
from dashboard.user.page import Event, LookupBusy, UserPage
from dashboard.views import Views
from tests.support.bundles import make_bundle
from tests.support.sample_records import sample
from training.bundles.signing import write_new_key
from training.promote import main as promote
from udfs.measurement.kpis import load_kpis

EVIL = '"><script>alert(1)</script>'
KPIS = load_kpis(Path(__file__).parents[3] / "conf" / "kpis.yaml")
DRAWN_BY_US = Path(app_module.__file__).parent


class KnownUsers:
    """Stands in for the topics: whoever is asked for has done one evil thing."""

    busy = False

    def find(self, user_id: str, place: tuple[int, int] | None = None) -> UserPage:
        if self.busy:
            raise LookupBusy
        score = sample("scores", user_id=EVIL, score=0.25, decision=True, arm=EVIL, model_version=EVIL)
        event = Event(3, 7, 1_800_000_000_000, EVIL, EVIL, score)
        reasons = [Contribution("device", EVIL, EVIL, 0.7), Contribution("country", EVIL, EVIL, -0.2)]
        why = Explanation(EVIL, EVIL, 0.25, 0.25, 0.1, reasons, 0.0, [("device", EVIL, EVIL)])
        return UserPage(user_id, [event], 0, 1, {"country": EVIL}, event, why, "", [EVIL], 10)


@pytest.fixture
def state() -> DashboardState:
    return DashboardState({role: role for role in SILENT_AFTER_MS}, 1_000)


@pytest.fixture
def users() -> KnownUsers:
    return KnownUsers()


@pytest.fixture
def client(state, users, tmp_path) -> TestClient:
    models = ModelPanel(None, make_bundle(tmp_path, "v1"))
    models.look()
    return TestClient(
        app_module.make_app(Views(state, models, KPIS), users, LOOPBACK), base_url="http://127.0.0.1:8080"
    )


@pytest.mark.parametrize("path", ["/", *(f"/{name}" for name in app_module.PAGES if name != "live"), "/user?id=u1"])
def test_every_page_has_a_heading_a_language_and_nothing_from_elsewhere(client, path):
    answer = client.get(path)
    assert answer.status_code == 200
    assert '<html lang="en">' in answer.text
    assert answer.text.count("<h1") == 1
    for link in re.findall(r'(?:src|href|action)="([^"]*)"', answer.text):
        assert re.match(r"/|#", link)
        assert not link.startswith("//")
        if link.startswith("/static/"):
            assert client.get(link).status_code == 200
    assert not re.search(r"<script(?! src=)|\son\w+=|\sstyle=", answer.text)


@pytest.mark.parametrize("name", [name for name in app_module.PAGES if name != "user"])
def test_every_page_has_data_also_before_anything_has_come(client, name):
    answer = client.get(f"/data/{name}")
    assert answer.status_code == 200
    assert answer.json()["status"]["broker"] == "asked"


def test_what_a_user_did_is_text_on_the_page(client):
    answer = client.get("/user", params={"id": EVIL})
    assert answer.status_code == 200
    assert "<script>alert" not in answer.text
    assert answer.text.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 8
    assert 'href="/user?id=%22%3E%3Cscript%3E' in answer.text


def test_the_experiments_page_begins_with_the_decision_as_text(client, state):
    state.experiments.add(sample("experiments", action="stop", decision=f"Stop {EVIL}"))
    text = client.get("/experiment").text
    heading = re.search(r"<main.*?<h1[^>]*>(.*?)</h1>", text, re.DOTALL)
    assert heading[1].startswith("Stop &#34;&gt;&lt;script&gt;")
    assert "bad" in re.search(r'<h1 class="([^"]*)"', text)[1]


def test_the_page_of_kpis_tells_how_many_sessions_are_of_bots(client, state):
    assert client.get("/data/kpis").json()["sessions"] == {"all": 0, "bots": 0}
    for arm, sessions in (("champion", 90), ("bot", 10)):
        for kpi in KPIS:
            state.kpis.add(sample("kpis", kpi=kpi, arm=arm, numerator=1, denominator=sessions))
    assert client.get("/data/kpis").json()["sessions"] == {"all": 100, "bots": 10}
    assert 'id="bots"' in client.get("/kpis").text


def test_the_live_page_names_the_experiment_that_was_evaluated_last(client, state):
    for at, version in ((2, "v3"), (1, "v2")):
        state.experiments.add(sample("experiments", at=at, treatment_version=version))
    assert client.get("/data/live").json()["experiment"]["names"] == ["challenger v3", "champion v1"]


@pytest.mark.parametrize(
    ("scored", "latency_ms", "trend"),
    [(30, 5_000, "grows"), (100, 5_000, "holds"), (200, 5_000, "shrinks"), (30, 500, None)],
)
def test_the_live_page_tells_a_backlog_and_whether_it_grows(client, state, scored, latency_ms, trend):
    now = app_module.now_ms()
    for second in range(61):
        at = now - (60 - second) * 1_000
        state.observe(at, {"clicks": {0: second * 100}, "scores": {0: second * scored}, "dead_letters": {0: 0}})
    state.latencies.add(now, [latency_ms] * 20)
    backlog = client.get("/data/live").json()["status"]["backlog"]
    assert (backlog and backlog["trend"]) == trend
    assert client.get("/data/kpis").json()["status"]["backlog"] is None


def test_scripts_never_set_html():
    """What comes from events gets onto pages as text: the element's constructor in dom.js knows nothing else."""
    for script in (DRAWN_BY_US / "static").glob("*.js"):
        if script.name != "uplot.min.js":
            assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", script.read_text())


def test_answers_forbid_what_is_not_from_here(client):
    headers = client.get("/").headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


def test_another_name_that_was_pointed_here_gets_nothing(client):
    assert client.get("/data/live", headers={"host": "evil.example:8080"}).status_code == 400


@pytest.mark.parametrize("method", ["post", "put", "delete", "patch"])
def test_nothing_can_be_changed(client, method):
    for path in ("/", "/user", "/data/live", "/static/style.css"):
        assert getattr(client, method)(path).status_code == 405


def test_what_is_not_there_is_not_found(client):
    assert client.get("/data/feature?version=v1&name=nothing").status_code == 404
    assert client.get("/data/unheard").status_code == 404
    assert (Path(app_module.__file__).parent / "app.py").exists()
    for path in ("/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static/x/%2e%2e/%2e%2e/app.py"):
        assert client.get(path).status_code == 404
    assert client.get("/user", params={"id": "x" * 129}).status_code == 400


@pytest.mark.parametrize("event", ["9" * 5_000 + "-1", "1-" + "9" * 5_000, "-", "\u0663-1", "%00", "0x1-1"])
def test_a_place_that_no_event_has_is_no_place(client, event):
    assert client.get(f"/user?id=u1&event={event}").status_code == 200


def test_a_second_lookup_is_asked_to_wait(client, users):
    users.busy = True
    assert client.get("/user?id=u1").status_code == 503


def test_the_dashboard_is_on_this_machine_alone_and_takes_the_next_free_port():
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with listen("127.0.0.1", port) as other:
            assert other.getsockname()[0] == "127.0.0.1"
            assert other.getsockname()[1] != port


def test_the_registrys_ledger_and_shares_are_told(tmp_path):
    uri = str(tmp_path / "registry")
    for version in ("v1", "v2"):
        assert promote(["stage", str(make_bundle(tmp_path, version)), "--registry", uri]) == 0
    assert promote(["start", "v1", "--champion", "--registry", uri, "--why", EVIL]) == 0
    assert promote(["start", "v2", "--at-most", "0.5", "--share", "0.2", "--registry", uri, "--why", "better"]) == 0
    (tmp_path / "registry" / "retraining").mkdir()
    (tmp_path / "registry" / "retraining" / "half.json").write_text('{"run": "r1", ')
    models = ModelPanel(uri, tmp_path)
    models.look()
    told = models.summary()
    assert [line["number"] for line in told["ledger"]] == [2, 1]
    assert told["ledger"][1]["why"] == EVIL
    assert {arm["arm"]: arm["share"] for arm in told["serving"]} == {"champion": 0.8, "challenger": 0.2}
    assert told["models"]["v1"]["metrics"]["test_roc_auc"][0] == 0.8
    assert told["runs"] == []
    assert "retraining/half.json: not the record of a run" in told["error"]


def test_the_reason_why_jobs_refuse_the_newest_entry_is_told(tmp_path):
    uri = str(tmp_path / "registry")
    public_key = write_new_key(tmp_path / "key.pem")
    assert promote(["stage", str(make_bundle(tmp_path, "v1")), "--registry", uri]) == 0
    assert promote(["start", "v1", "--champion", "--registry", uri, "--why", "first"]) == 0
    models = ModelPanel(uri, tmp_path, (public_key,))
    models.look()
    told = models.summary()
    assert told["error"].startswith(f"jobs refuse the newest entry: {uri}/bundles/v1: not signed")
    assert (told["serving"][0]["version"], told["models"]) == ("v1", {"v1": None})


def test_an_entry_that_could_not_be_read_once_is_read_again(tmp_path, monkeypatch):
    uri = str(tmp_path / "registry")
    assert promote(["stage", str(make_bundle(tmp_path, "v1")), "--registry", uri]) == 0
    assert promote(["start", "v1", "--champion", "--registry", uri, "--why", "first"]) == 0
    models, read = ModelPanel(uri, tmp_path), models_module._entry
    monkeypatch.setattr(models_module, "_entry", lambda registry, number: "503 Slow Down")
    models.look()
    assert models.summary()["ledger"][0]["problem"] == "503 Slow Down"
    monkeypatch.setattr(models_module, "_entry", read)
    models.look()
    assert models.summary()["ledger"][0]["why"] == "first"


def test_a_registry_that_is_gone_is_told_and_what_was_known_stays(tmp_path):
    uri = tmp_path / "registry"
    assert promote(["stage", str(make_bundle(tmp_path, "v1")), "--registry", str(uri)]) == 0
    assert promote(["start", "v1", "--champion", "--registry", str(uri), "--why", "first"]) == 0
    models = ModelPanel(str(uri), tmp_path)
    models.look()
    uri.rename(tmp_path / "elsewhere")
    models.look()
    assert "gone" in models.summary()["error"]
    assert models.summary()["serving"][0]["version"] == "v1"
