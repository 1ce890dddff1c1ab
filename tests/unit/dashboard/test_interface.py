"""The dashboard's HTTP interface: what any request gets, as a table of routes says it."""

import asyncio
import json
import re
from urllib.parse import quote, urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dashboard.app import HEADERS, PAGES
from tests.support.examples import examples
from tools.fuzz.targets.dashboard import MARKUP, ask, filled_app

HTML, JSON, TEXT = "text/html; charset=utf-8", "application/json", "text/plain; charset=utf-8"
#: Paths, as regular expressions, with the statuses and the type of what a GET or HEAD of them returns.
ROUTES = {
    "/": ({200}, HTML),
    f"/({'|'.join(name for name in PAGES if name not in ('live', 'user'))})": ({200}, HTML),
    "/user": ({200, 400}, HTML),
    f"/data/({'|'.join(name for name in PAGES if name != 'user')})": ({200}, JSON),
    "/data/feature": ({200, 404}, JSON),
    "/data/[^/]+": ({404}, JSON),
    "/static(/.*)?": ({200, 206, 304, 400, 404, 416}, None),
}
FILES = ("style.css", "uplot.min.js", "dom.js")

NAMES = (
    "accept", "accept-encoding", "content-length", "content-type", "cookie", "if-match", "if-modified-since",
    "if-none-match", "if-range", "origin", "range", "referer", "transfer-encoding", "x-forwarded-host",
)  # fmt: skip

texts = st.text(max_size=12) | st.sampled_from(
    [MARKUP, "..", "\0", "ada", "v1", "score", "0-0", "9" * 5_000, "x" * 200]
)
starts = st.sampled_from(["/", "/data/", "/static/", "//"])
paths = (
    st.sampled_from(["/", "/user", "/data/feature", *(f"/static/{name}" for name in FILES)])
    | st.sampled_from([*PAGES]).flatmap(lambda name: st.sampled_from([f"/{name}", f"/data/{name}", f"/{name}/"]))
    | st.builds(lambda start, parts: start + "/".join(map(quote, parts)), starts, st.lists(texts, max_size=3))
)
queries = (
    st.lists(st.tuples(st.sampled_from(["id", "event", "version", "name", "other"]), texts), max_size=4).map(urlencode)
    | st.just(f"id={MARKUP}&version={MARKUP}")
    | st.binary(max_size=20).map(lambda content: content.decode("latin-1"))
)
headers = st.lists(
    st.tuples(
        st.sampled_from(NAMES),
        texts.filter(str.isprintable) | st.sampled_from(["bytes=0-1,5-", "bytes=9-1", "bytes=-0", "*", "gzip", "-1"]),
    ),
    max_size=3,
)
methods = st.sampled_from(["GET"] * 6 + ["HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get", "X"])


@pytest.fixture(scope="module")
def app():
    return filled_app()


@pytest.fixture(scope="module")
def loop():
    with asyncio.Runner() as runner:
        yield runner


@examples(60)
@example("GET", "/kpis/", "\x80", [], "localhost")
@given(methods, paths, queries, headers, st.sampled_from(["localhost"] * 9 + ["evil.example", "", MARKUP]))
def test_any_request_gets_what_its_route_says(app, loop, method, path, query, sent, host):
    lines = [f"host: {host}", *(f"{name}: {value}" for name, value in sent)]
    target = f"{path}?{query}".encode("latin-1")
    status, body, got = loop.run(ask(app, method.encode(), target, [line.encode() for line in lines]))

    assert HEADERS.items() <= got.items()
    assert status < 500
    if host != "localhost":
        assert (status, got["content-type"]) == (400, TEXT)
        return
    expected = next((answer for route, answer in ROUTES.items() if re.fullmatch(route, path)), ({404}, TEXT))
    statuses, kind = expected
    if method in ("GET", "HEAD"):
        assert status in statuses
        assert kind in (None, got["content-type"])
    else:
        assert status in (404, 405)
        assert status == 404 or "GET" in got["allow"]
    if got.get("content-type") == HTML:
        assert MARKUP.encode() not in body
    if got.get("content-type") == JSON:
        json.loads(body)
