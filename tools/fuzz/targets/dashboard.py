"""The dashboard: requests of a hostile client, and records of topics as it reads them.

Contract: no request is answered with a status of 500 or above, each has the security headers, and no text comes back
as markup. No record stops the reading, and the pages and their data can be made of all that is accepted.
"""

import asyncio
import json
from pathlib import Path
from urllib.parse import unquote

from starlette.types import ASGIApp

from dashboard.app import HEADERS, PAGES, make_app
from dashboard.panels.models import ModelPanel
from dashboard.panels.state import SILENT_AFTER_MS, DashboardState
from dashboard.user.page import Event, UserPage
from dashboard.views import Views
from tools.fuzz.engine import ContractError
from tools.fuzz.target import Target
from tools.paths import PROJECT
from udfs.measurement.kpis import load_kpis

NOW_MS = 1_800_000_000_000
MARKUP = "<script>alert(1)</script>"
_BUDGET_MS = 1_000
_CLICK = {"user_id": "ada", "event_id": "e", "event_time": NOW_MS, "source_partition": 0, "source_offset": 7}
_SCORED = {
    **_CLICK, "event_name": "view_item", "score": 0.3, "decision": False, "arm": "champion", "model_version": "v1",
}  # fmt: skip
_FEATURE = {
    "name": "score", "psi": 0.3, "level": "alarm", "unwatched": None, "missing": 0.1, "unseen": 0.0,
    "shares": [0.5, 0.5],
}  # fmt: skip
#: A record of each topic that the dashboard reads, by role.
_RECORDS = {
    "scores": {**_SCORED, "propensity": 0.9, "scored_at": NOW_MS + 40},
    "outcomes": {**_SCORED, "label": True, "evaluated": True, "matured_at": NOW_MS},
    "dead_letters": {
        "topic": "clicks", "partition": 0, "offset": 7, "timestamp": "2027-01-15T08:00:00.000Z", "reason": "too_deep",
        "message": MARKUP, "original": "ew==",
    },
    "kpis": {
        "window_start": NOW_MS, "window": "minute", "arm": "champion", "placement": "hero", "kpi": "conversion_rate",
        "numerator": 1, "denominator": 2, "value": 0.5,
    },
    "model_quality": {
        "event_minute": NOW_MS, "model_version": "v1", "arm": "champion", "scores": 10, "roc_auc": 0.7,
        "average_precision": 0.5, "log_loss": 0.2, "mean_score": 0.1, "positive_rate": 0.1,
    },
    "experiments": {
        "at": NOW_MS, "treatment": "challenger", "baseline": "champion", "treatment_version": "v2",
        "baseline_version": "v1", "kpi": "conversion_rate", "treatment_users": 10, "baseline_users": 20,
        "treatment_value": 0.1, "baseline_value": 0.2, "difference": -0.1, "low": -0.2, "high": 0.0,
        "relative_difference": -0.5, "relative_low": -1, "relative_high": 0, "p_value": 0.04, "is_better": False,
        "is_worse": True, "guardrail": "held", "sample_ratio_p": 0.5, "action": "stop", "decision": f"Stop {MARKUP}",
    },
    "drift": {
        "window_start": NOW_MS - 60_000, "window_end": NOW_MS, "model_version": "v1", "rows": 5, "level": "alarm",
        "score_psi": 0.1, "label_rate": 0.1, "moved": ["score"], "features": [_FEATURE],
    },
}  # fmt: skip
_PAGES_OF = {
    "scores": ("live", "models"), "outcomes": ("models",), "dead_letters": ("dead-letters", "live"), "kpis": ("kpis",),
    "model_quality": ("models",), "experiments": ("experiment", "live"), "drift": ("drift", "live"),
}  # fmt: skip


class _Echo:
    """Stands in for the lookup of users: whoever is asked for has done one thing."""

    def find(self, user_id: str, place: tuple[int, int] | None = None) -> UserPage:
        user_id.encode()
        event = Event(*(place or (0, 0)), NOW_MS, user_id, user_id, None)
        return UserPage(user_id, [event], 0, 1, {"country": user_id}, event, None, user_id, [user_id])


def requests() -> Target:
    """HTTP requests: method and target in the first line, then headers, as a server passes them on."""
    app = filled_app()
    lines = [
        *(f"GET /{name}" for name in PAGES if name != "live"),
        *(f"GET /data/{name}?version=v1" for name in PAGES),
        "GET /",
        "GET /user?id=ada&event=3-1234",
        "GET /user?id=%3Cscript%3Ealert(1)%3C/script%3E&event=0-0",
        f"GET /user?id={MARKUP}",
        f"GET /{MARKUP}?{MARKUP}",
        "GET /data/feature?version=v1&name=score",
        "GET /data/drift?version=%00%ff%f0%9f%98%80",
        f"GET /user?id=1&event={'9' * 5_000}-1",
        "GET /static/style.css",
        "GET /static/%2e%2e/app.py",
        "GET /static//etc/passwd",
        f"GET /static/{'a' * 300}",
        "GET /static/a%00b",
        "HEAD /static/uplot.min.js",
        "POST /user?id=ada",
        "OPTIONS *",
    ]
    headers = (
        "\nhost: localhost\nif-none-match: x\nrange: bytes=0-1,5-\nif-modified-since: Thu, 01 Jan 1970 00:00:00 GMT"
    )
    loop = asyncio.new_event_loop()

    def run(data: bytes) -> str:
        first, *rest = data.split(b"\n")
        method, _, target = first.partition(b" ")
        status, body, sent = loop.run_until_complete(ask(app, method, target, rest))
        if status >= 500:
            raise ContractError(f"status {status}")
        if not HEADERS.items() <= sent.items():
            raise ContractError("security headers are missing")
        if MARKUP.encode() in body and "html" in sent.get("content-type", ""):
            raise ContractError("markup from the request is on the page")
        return f"{status} {sent.get('content-type')} {len(body) // 1000}"

    return Target(tuple((line + headers).encode() for line in lines), run)


def records() -> Target:
    """Records of a topic, one line each; its role is in the first line."""
    state = _state()
    app, views = _app(state), _views(state)
    loop = asyncio.new_event_loop()
    corpus = [f"{role}\n{json.dumps(record)}\n{json.dumps(record)}".encode() for role, record in _RECORDS.items()]

    def run(data: bytes) -> str:
        name, *values = data.split(b"\n")
        role = name.decode(errors="replace")
        if role not in _RECORDS:
            return "no such topic"
        state.__init__({known: known for known in SILENT_AFTER_MS}, _BUDGET_MS)  # empty again
        taken = state.take(role, NOW_MS, values, [NOW_MS] * len(values))
        if len(taken) + state.decoders[role].undecodable != len(values):
            raise ContractError("a record is neither taken nor counted as unreadable")
        for page in _PAGES_OF[role]:
            paths = [b"/data/" + page.encode()] + [b"/" + page.encode() if page != "live" else b"/"] * bool(taken)
            for path in paths:
                status, body, _ = loop.run_until_complete(ask(app, b"GET", path, [b"host: localhost"]))
                if status != 200 or (path.startswith(b"/data") and not json.loads(body)):
                    raise ContractError(f"status {status} of {path}")
                if not path.startswith(b"/data") and MARKUP.encode() in body:
                    raise ContractError("markup from a record is on the page")
        if role == "drift" and taken:
            views.feature(taken[0].model_version, taken[0].features[0].name)
        return f"{role} {len(taken)} {state.decoders[role].last_error[:40]}"

    return Target(tuple(corpus), run)


def filled_app() -> ASGIApp:
    """The dashboard with a record of each topic, which answers to the host localhost."""
    state = _state()
    for role, record in _RECORDS.items():
        state.take(role, NOW_MS, [json.dumps(record).encode()])
    return _app(state)


def _state() -> DashboardState:
    return DashboardState({role: role for role in SILENT_AFTER_MS}, _BUDGET_MS)


def _views(state: DashboardState) -> Views:
    return Views(state, ModelPanel(None, Path("nowhere")), load_kpis(PROJECT / "conf" / "kpis.yaml"))


def _app(state: DashboardState) -> ASGIApp:
    return make_app(_views(state), _Echo(), ("localhost",))


async def ask(
    app: ASGIApp, method: bytes, target: bytes, header_lines: list[bytes]
) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers of the answer to a request, which the app gets as uvicorn passes it on."""
    path, _, query = target.partition(b"?")
    headers = [tuple(part.strip() for part in line.partition(b":")[::2]) for line in header_lines if b":" in line]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method.decode("latin-1"),
        "scheme": "http",
        "path": unquote(path.decode("latin-1")),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in headers],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8080),
    }
    status, body, sent = 0, b"", {}
    messages = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict:
        if not messages:
            await asyncio.Event().wait()  # the client does not hang up
        return messages.pop()

    async def send(message: dict) -> None:
        nonlocal status, body
        if message["type"] == "http.response.start":
            status = message["status"]
            sent.update((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in message["headers"])
        else:
            body += message.get("body", b"")

    await app(scope, receive, send)
    return status, body, sent
