"""The web application: read-only pages, served by this process alone, that execute nothing from event data."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dashboard.user.page import LookupBusy, UserPage, Users
from dashboard.views import Views
from udfs.config.durations import now_ms
from udfs.kafka.errors import KafkaClientError

HERE = Path(__file__).parent
PAGES = {
    "live": "Live",
    "experiment": "Experiment",
    "kpis": "KPIs",
    "models": "Models",
    "drift": "Drift",
    "dead-letters": "Dead letters",
    "user": "User lookup",
}
LONGEST_USER_ID = 128
#: Nothing from elsewhere, nothing inline, nothing that frames or is framed.
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


def make_app(views: Views, users: Users, hosts: Sequence[str]) -> Starlette:
    """The application; it answers only to the host names in `hosts`, which prevents DNS rebinding."""
    templates = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def render(name: str, status_code: int = 200, **values: object) -> HTMLResponse:
        page = templates.get_template(f"{name}.html").render(page=name, pages=PAGES, **values)
        return HTMLResponse(page, status_code)

    def page(name: str) -> Callable[[Request], Response]:
        def show(_request: Request) -> Response:
            return render(name, data=views.page(name, now_ms()))

        return show

    def user(request: Request) -> Response:
        user_id = request.query_params.get("id", "").strip()
        values: dict[str, object] = {"data": {"status": views.status("user", now_ms())}, "asked": user_id}
        if not user_id:
            return render("user", result=None, problem="", **values)
        if len(user_id) > LONGEST_USER_ID:
            problem = f"A user ID has at most {LONGEST_USER_ID} characters."
            return render("user", 400, result=None, problem=problem, **values)
        try:
            result: UserPage = users.find(user_id, _place(request.query_params.get("event", "")))
        except LookupBusy:
            return render("user", 503, result=None, problem="Another lookup is in progress. Try again.", **values)
        except KafkaClientError as error:
            return render("user", 503, result=None, problem=f"User lookup failed: {error}", **values)
        return render("user", result=result, problem="", **values)

    def data(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in PAGES or name == "user":
            return _json({"error": "unknown page"}, 404)
        return _json(views.page(name, now_ms(), request.query_params.get("version")))

    def feature(request: Request) -> Response:
        distributions = views.feature(request.query_params.get("version", ""), request.query_params.get("name", ""))
        return _json(distributions or {"error": "no drift window has this feature"}, 200 if distributions else 404)

    app = Starlette(
        routes=[
            Route("/", page("live")),
            *(Route(f"/{name}", page(name)) for name in PAGES if name not in ("live", "user")),
            Route("/user", user),
            Route("/data/feature", feature),
            Route("/data/{name}", data),
            Mount("/static", StaticFiles(directory=HERE / "static")),
        ],
        middleware=[Middleware(_Headers), Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))],
    )
    app.router.redirect_slashes = False  # it fails at a query that is not UTF-8
    return app


class _Headers:
    """Adds HEADERS to every response."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _json(content: dict, status_code: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status_code, {"cache-control": "no-store"}, "application/json")


def _place(text: str) -> tuple[int, int] | None:
    """A partition and an offset, written 3-1234."""
    place = re.fullmatch(r"([0-9]{1,10})-([0-9]{1,19})", text)
    return (int(place[1]), int(place[2])) if place else None
