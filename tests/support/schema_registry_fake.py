"""A schema registry in this process that answers as Confluent's API reference says, and counts what it is asked."""

import json
import ssl
import threading
from base64 import b64decode
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

Reference = dict[str, Any]


class FakeSchemaRegistry:
    """`requests` are the paths of all GETs, `statuses` the answers to the next ones instead of the right ones.

    With `credentials` (USER:PASSWORD) every request must log in; with `certificate` and `key` it speaks TLS.
    """

    def __init__(self, credentials: str | None = None, certificate: Path | None = None, key: Path | None = None):
        self.requests: list[str] = []
        self.statuses: list[int] = []
        self.page: bytes | None = None  # answered to everything, such as the login page of a proxy
        self._credentials = credentials
        self._schemas: list[dict[str, Any]] = []  # the schema of id n at n - 1
        self._versions: dict[str, list[int]] = {}  # ids by subject
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                registry.requests.append(self.path)
                if registry.page is not None:
                    self._send(200, registry.page)
                elif not registry.admits(self.headers.get("Authorization")):
                    self._answer(401, {"error_code": 401, "message": "Unauthorized"})
                elif registry.statuses:
                    status = registry.statuses.pop(0)
                    self._answer(status, {"error_code": 50003, "message": "Error while forwarding the request"})
                else:
                    path = urlsplit(self.path).path.strip("/").split("/")
                    self._answer(*registry.answer([unquote(part) for part in path]))

            def _answer(self, status: int, body: dict[str, Any]) -> None:
                self._send(status, json.dumps(body).encode())

            def _send(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        scheme = "http" if certificate is None else "https"
        self.url = f"{scheme}://localhost:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def register(self, subject: str, schema: str, kind: str = "AVRO", references: Sequence[Reference] = ()) -> int:
        """Add a version of a subject; returns the schema's id."""
        stored = {"schema": schema}
        if kind != "AVRO":
            stored["schemaType"] = kind
        if references:
            stored["references"] = list(references)
        if stored not in self._schemas:
            self._schemas.append(stored)
        schema_id = self._schemas.index(stored) + 1
        self._versions.setdefault(subject, []).append(schema_id)
        return schema_id

    def refer(self, name: str, subject: str, version: int = 1) -> Reference:
        return {"name": name, "subject": subject, "version": version}

    def admits(self, authorization: str | None) -> bool:
        if self._credentials is None:
            return True
        method, _, encoded = (authorization or "").partition(" ")
        return method == "Basic" and b64decode(encoded).decode() == self._credentials

    def answer(self, path: list[str]) -> tuple[int, dict[str, Any]]:
        match path:
            case ["schemas", "ids", schema_id]:
                if 0 < int(schema_id) <= len(self._schemas):
                    return 200, self._schemas[int(schema_id) - 1]
                return 404, {"error_code": 40403, "message": f"Schema {schema_id} not found"}
            case ["subjects", subject, "versions", version]:
                ids = self._versions.get(subject)
                if ids is None:
                    return 404, {"error_code": 40401, "message": f"Subject '{subject}' not found."}
                if int(version) > len(ids):
                    return 404, {"error_code": 40402, "message": f"Version {version} not found."}
                schema_id = ids[int(version) - 1]
                return 200, {
                    "subject": subject,
                    "version": int(version),
                    "id": schema_id,
                    **self._schemas[schema_id - 1],
                }
        return 404, {"error_code": 404, "message": "HTTP 404 Not Found"}
