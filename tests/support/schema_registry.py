"""A real schema registry, Apicurio with its storage in memory, as a process of its own.

It answers Confluent's API at /apis/ccompat/v7, needs Java 17 but no broker, and is ready after about 6 s.
"""

import json
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import urllib3

from tools.paths import PROJECT
from tools.stack.processes import Process, start, stop, wait_until

#: Where its release is unpacked: io.apicurio:apicurio-registry-app:3.0.9:tar.gz:all of Maven Central.
INSTALLED = PROJECT / "build" / "schema-registry"
READY_SECONDS = 120.0


class RealSchemaRegistry:
    """The registry, started on a free port while the context is open; its log is in `directory`."""

    def __init__(self, directory: Path, installed: Path = INSTALLED):
        self._directory, self._installed = directory, installed
        self._http = urllib3.PoolManager(retries=False, timeout=10)

    def __enter__(self) -> Self:
        jar = next(self._installed.glob("apicurio-registry-app-*-runner.jar"))
        port = _free_port()
        options = ["-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
        settings = {"http.host": "127.0.0.1", "http.port": port}
        self._directory.mkdir(parents=True, exist_ok=True)
        self._process: Process = start(
            "schema-registry",
            ["java", *options, *[f"-Dquarkus.{key}={value}" for key, value in settings.items()], "-jar", str(jar)],
            self._directory / "schema-registry.log",
            self._directory,
            os.environ,
            {"http": port},
        )
        self.url = f"http://127.0.0.1:{port}/apis/ccompat/v7"
        try:
            wait_until(self._is_ready, self._process, READY_SECONDS)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        stop([self._process])
        self._http.clear()

    def register(
        self, subject: str, schema: str, kind: str = "AVRO", references: Sequence[Mapping[str, Any]] = ()
    ) -> int:
        """Add a version of a subject; returns the schema's id."""
        response = self._http.request(
            "POST",
            f"{self.url}/subjects/{quote(subject, safe='')}/versions",
            body=json.dumps({"schema": schema, "schemaType": kind, "references": list(references)}).encode(),
            headers={"Content-Type": "application/vnd.schemaregistry.v1+json"},
        )
        if response.status != 200:
            raise RuntimeError(f"{subject}: HTTP status {response.status}: {response.data.decode()}")
        return response.json()["id"]

    def _is_ready(self) -> bool:
        try:
            return self._http.request("GET", f"{self.url}/subjects").status == 200
        except urllib3.exceptions.HTTPError:
            return False


def reference(name: str, subject: str, version: int = 1) -> dict[str, Any]:
    """What a schema says of another that it uses: in Avro `name` is the type, in Protobuf the imported path."""
    return {"name": name, "subject": subject, "version": version}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
