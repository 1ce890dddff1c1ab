"""A client of schema registries with Confluent's REST API: Confluent, Karapace, Redpanda, Apicurio (path /ccompat)."""

import os
import random
import time
from base64 import b64encode
from collections.abc import Callable
from typing import Annotated
from urllib.parse import quote

import msgspec
import urllib3
from msgspec import Meta

from udfs.config.durations import Duration, duration_ms
from udfs.config.reading import NOT_JSON
from udfs.config.text import one_line
from udfs.config.variables import NAMED, substitute

MAX_ID = 2**31 - 1  # registries number their schemas with Java's int
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
_RETRIED = {408, 425, 429, 500, 502, 503, 504}
_Text = Annotated[str, Meta(min_length=1)]


class RegistryError(RuntimeError):
    """The registry can't be asked: wrong address, no access, or an answer of something else. No record's fault."""


class RegistryUnreachable(RegistryError):
    """The registry did not answer for as long as requests are repeated."""


class SchemaError(ValueError):
    """There is no such schema, or records can't be read with it."""


class RegistryOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Address of a schema registry and how to log in there; its text does not show the credentials.

    `url` can list several nodes of one registry, separated by commas. `credentials` are USER:PASSWORD; a ${env:NAME} in
    them is looked up where the client runs. The certificates and the key are paths of PEM files.
    """

    url: Annotated[str, Meta(pattern=r"^https?://[^\s/@,]+(/[^\s@,]*)?(,\s*https?://[^\s/@,]+(/[^\s@,]*)?)*$")]
    credentials: Annotated[str, Meta(pattern=":")] | None = None
    ca_certificate: _Text | None = None  # without it, the certificates of the system
    client_certificate: _Text | None = None
    client_key: _Text | None = None
    request_timeout: Duration = "5 s"
    give_up_after: Duration = "30 s"  # less than workers.answer_timeout, or that one reports the failure

    def __repr__(self) -> str:
        return f"RegistryOptions(url={self.url!r})"


class Reference(msgspec.Struct):
    """Another schema that a schema uses: in Avro `name` is the type that it defines, in Protobuf the imported path."""

    name: str
    subject: str
    version: int


class Schema(msgspec.Struct, rename="camel"):
    """A schema as the registry has it: JSON for Avro; for Protobuf .proto text or, in base64, a FileDescriptorProto."""

    schema: str
    schema_type: str = "AVRO"
    references: list[Reference] | None = None


class SchemaRegistry:
    """Asks a registry for schemas; each call is a request, so callers keep what they get."""

    def __init__(
        self,
        options: RegistryOptions,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._urls = [url.strip().rstrip("/") for url in options.url.split(",")]
        self._give_up_s = duration_ms(options.give_up_after) / 1000
        self._sleep, self._clock = sleep, clock
        self._http = urllib3.PoolManager(
            headers=_headers(options),
            timeout=duration_ms(options.request_timeout) / 1000,
            retries=False,
            ca_certs=options.ca_certificate,
            cert_file=options.client_certificate,
            key_file=options.client_key,
        )

    @property
    def address(self) -> str:
        return ", ".join(self._urls)

    def schema(self, schema_id: int) -> Schema:
        """The schema of an id. Raises SchemaError if the registry has none, and RegistryError."""
        if schema_id > MAX_ID:
            raise SchemaError(f"no registry numbers a schema {schema_id}: ids are at most {MAX_ID}")
        answer = self._get(f"/schemas/ids/{schema_id}")
        if answer is None:
            raise SchemaError(f"the schema registry {self.address} has no schema {schema_id}")
        return answer

    def dependencies(self, schema: Schema) -> dict[str, str]:
        """The schemas that `schema` needs, by the names that it uses, each after those that it needs itself.

        Raises SchemaError if the registry lacks one, and RegistryError.
        """
        found: dict[str, str] = {}
        self._collect(schema, found, set())
        return found

    def _collect(self, schema: Schema, found: dict[str, str], asked: set[tuple[str, int]]) -> None:
        for reference in schema.references or ():
            if (reference.subject, reference.version) in asked:
                continue
            asked.add((reference.subject, reference.version))
            # A schema that is in use can be deleted; it is then only hidden.
            path = f"/subjects/{quote(reference.subject, safe='')}/versions/{reference.version}?deleted=true"
            needed = self._get(path)
            if needed is None:
                raise SchemaError(
                    f"the schema registry {self.address} lacks version {reference.version} of subject "
                    f"{reference.subject}, which the schema refers to"
                )
            self._collect(needed, found, asked)
            found[reference.name] = needed.schema

    def _get(self, path: str) -> Schema | None:
        """The schema at a path, None where the registry has none."""
        began, pause, attempt = self._clock(), _FIRST_PAUSE_S, 0
        while True:
            url = self._urls[attempt % len(self._urls)] + path
            try:
                response = self._http.request("GET", url)
            except urllib3.exceptions.HTTPError as error:
                problem = one_line(error)
            else:
                if response.status not in _RETRIED:
                    return _answer(url, response)
                problem = f"HTTP status {response.status}"
            attempt += 1
            if self._clock() - began + pause > self._give_up_s:
                raise RegistryUnreachable(
                    f"{url}: {problem}; tried {attempt} times in {self._clock() - began:.0f} s; check that the schema "
                    "registry is up and schema_registry.url is right, the job then goes on by itself"
                )
            self._sleep(pause * random.uniform(0.5, 1))  # workers that failed together should not come back together
            pause = min(2 * pause, _LONGEST_PAUSE_S)


def _headers(options: RegistryOptions) -> dict[str, str]:
    headers = {"Accept": "application/vnd.schemaregistry.v1+json, application/json"}
    if options.credentials is not None:
        credentials = substitute(
            NAMED, options.credentials, os.environ, lambda problem: RegistryError(f"schema registry: {problem}")
        )
        headers["Authorization"] = f"Basic {b64encode(credentials.encode()).decode()}"
    return headers


def _answer(url: str, response: urllib3.BaseHTTPResponse) -> Schema | None:
    if response.status == 200:
        try:
            return msgspec.json.decode(response.data, type=Schema)
        except NOT_JSON as error:
            raise RegistryError(
                f"{url}: not an answer of a schema registry ({one_line(error)}): {_beginning(response.data)}; check "
                "schema_registry.url"
            ) from None
    # Only the registry's own codes say that it lacks something; any other 404 is a wrong address.
    if response.status == 404 and _error_code(response.data) // 100 == 404:
        return None
    advice = "credentials" if response.status in (401, 403) else "url"
    raise RegistryError(
        f"{url}: HTTP status {response.status}: {_beginning(response.data)}; check schema_registry.{advice}"
    )


class _Error(msgspec.Struct):
    error_code: int = 0


def _error_code(body: bytes) -> int:
    try:
        return msgspec.json.decode(body, type=_Error).error_code
    except NOT_JSON:
        return 0


def _beginning(body: bytes) -> str:
    return " ".join(body[:200].decode(errors="replace").split())
