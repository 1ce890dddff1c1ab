"""The client of schema registries: its answers, its patience, and whose fault a failure is."""

import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.schema_registry_fake import FakeSchemaRegistry
from udfs.formats.schema_registry import (
    Reference,
    RegistryError,
    RegistryOptions,
    RegistryUnreachable,
    Schema,
    SchemaError,
    SchemaRegistry,
)


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self):
        self.now, self.slept = 1000.0, []

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def fake() -> Iterator[FakeSchemaRegistry]:
    with FakeSchemaRegistry() as running:
        yield running


def client(url: str, clock: Clock | None = None, **options) -> SchemaRegistry:
    clock = clock or Clock()
    return SchemaRegistry(RegistryOptions(url=url, **options), clock.sleep, clock)


def closed_url() -> str:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


def test_schemas_by_id(fake):
    avro = fake.register("a", '"string"')
    reference = fake.refer("b.proto", "b")
    proto = fake.register("c", 'syntax = "proto3";', "PROTOBUF", [reference])
    assert client(fake.url).schema(avro) == Schema('"string"', "AVRO", None)
    assert client(f"{fake.url}/").schema(proto) == Schema(
        'syntax = "proto3";', "PROTOBUF", [Reference("b.proto", "b", 1)]
    )


@pytest.mark.parametrize("schema_id", [1, 0, 2**31 - 1, 2**31, 2**32 - 1])
def test_a_schema_that_the_registry_lacks_is_a_fault_of_the_record(fake, schema_id):
    with pytest.raises(SchemaError, match=str(schema_id)):
        client(fake.url).schema(schema_id)
    assert len(fake.requests) == (schema_id < 2**31)  # a registry can't look up a larger one


def test_dependencies_come_before_what_needs_them_and_once_each(fake):
    fake.register("size", "SIZE")
    fake.register("units/size proto", "OLD SIZE")
    fake.register("units/size proto", "SIZE")
    size = fake.refer("size.proto", "units/size proto", 2)
    fake.register("item", "ITEM", references=[size])
    item = fake.refer("item.proto", "item")
    registry, schema = client(fake.url), Schema("CART", "PROTOBUF", [Reference(**size), Reference(**item)])
    assert list(registry.dependencies(schema).items()) == [("size.proto", "SIZE"), ("item.proto", "ITEM")]
    schema.references.reverse()
    assert list(registry.dependencies(schema).items()) == [("size.proto", "SIZE"), ("item.proto", "ITEM")]
    assert len(fake.requests) == 4


def test_schemas_that_need_each_other_do_not_hang(fake):
    fake.register("a", "A", references=[fake.refer("b", "b")])
    fake.register("b", "B", references=[fake.refer("a", "a")])
    assert client(fake.url).dependencies(Schema("C", "AVRO", [Reference("a", "a", 1)])) == {"a": "A", "b": "B"}


def test_a_missing_dependency_is_named(fake):
    fake.register("item", "ITEM")
    registry = client(fake.url)
    for subject, version in (("size", 1), ("item", 2)):
        with pytest.raises(SchemaError, match=f"lacks version {version} of subject {subject}"):
            registry.dependencies(Schema("CART", "AVRO", [Reference("x", subject, version)]))


def test_an_unreachable_registry_is_asked_for_a_bounded_time():
    clock = Clock()
    with pytest.raises(RegistryUnreachable, match=r"tried \d+ times .* check that the schema registry is up"):
        client(closed_url(), clock, give_up_after="30 s").schema(1)
    assert 20 < sum(clock.slept) <= 30
    assert clock.slept[0] <= 0.1
    assert max(clock.slept) <= 5
    assert len(clock.slept) < 30


def test_a_registry_that_fails_for_a_while_is_waited_for(fake):
    schema_id = fake.register("a", "A")
    fake.statuses[:] = [503, 429, 500]
    clock = Clock()
    assert client(fake.url, clock).schema(schema_id).schema == "A"
    assert len(clock.slept) == 3


def test_a_registry_that_keeps_failing_is_named_with_its_status(fake):
    fake.statuses[:] = [503] * 1000
    with pytest.raises(RegistryUnreachable, match="HTTP status 503"):
        client(fake.url, give_up_after="1 s").schema(1)


def test_a_registry_that_does_not_answer_is_given_up():
    clock = Clock()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(RegistryUnreachable, match="timed out"):
            client(url, clock, request_timeout="20 ms", give_up_after="200 ms").schema(1)


def test_another_node_is_asked_when_one_fails(fake):
    schema_id = fake.register("a", "A")
    clock = Clock()
    assert client(f"{closed_url()}, {fake.url}/", clock).schema(schema_id).schema == "A"
    assert len(clock.slept) == 1


@pytest.mark.parametrize("path", ["/subjects", "/apis"])
def test_a_wrong_path_is_not_a_missing_schema(fake, path):
    with pytest.raises(RegistryError, match=r"HTTP status 404: .* check schema_registry\.url"):
        client(fake.url + path).schema(1)
    assert len(fake.requests) == 1


@pytest.mark.parametrize("page", [b"<html>log in</html>", b"[1]", b'{"schema": 5}', b"", b"\xff"])
def test_an_answer_of_something_else_fails_the_task(fake, page):
    fake.page = page
    with pytest.raises(RegistryError, match="not an answer of a schema registry"):
        client(fake.url).schema(1)


def test_credentials(monkeypatch):
    monkeypatch.setenv("REGISTRY_PASSWORD", "pässword:x")
    with FakeSchemaRegistry("key:pässword:x") as fake:
        schema_id = fake.register("a", "A")
        assert client(fake.url, credentials="key:pässword:x").schema(schema_id).schema == "A"
        assert client(fake.url, credentials="key:${env:REGISTRY_PASSWORD}").schema(schema_id).schema == "A"
        for wrong in ("key:wrong", None):
            with pytest.raises(RegistryError, match=r"HTTP status 401.*check schema_registry\.credentials") as error:
                client(fake.url, credentials=wrong).schema(schema_id)
            assert "wrong" not in str(error.value)
        with pytest.raises(RegistryError, match="environment variable MISSING is not set"):
            client(fake.url, credentials="key:${env:MISSING}")


def test_the_text_of_options_shows_no_credentials():
    options = RegistryOptions(url="http://registry:8081", credentials="key:secret")
    assert "secret" not in f"{options} {options!r} {[options]}"


@pytest.mark.parametrize(
    "options",
    [
        {"url": "registry:8081"},
        {"url": "http://key:secret@registry:8081"},
        {"url": "ftp://registry"},
        {"url": "http://a:8081 http://b:8081"},
        {"url": "http://a", "credentials": "key"},
        {"url": "http://a", "ca_certificate": ""},
        {"url": "http://a", "give_up_after": "soon"},
        {"url": "http://a", "password": "x"},
        {},
    ],
)
def test_options_are_checked(options):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(options, RegistryOptions)


@pytest.mark.parametrize("url", ["http://a", "https://a.b:8081/apis/ccompat/v7", "http://a:8081,http://b:8081/"])
def test_addresses(url):
    assert msgspec.convert({"url": url}, RegistryOptions).url == url


def certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate of localhost, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = directory / "certificate.pem", directory / "key.pem"
    files[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


def test_tls(tmp_path):
    signed, key = certificate(tmp_path)
    with FakeSchemaRegistry(certificate=signed, key=key) as fake:
        schema_id = fake.register("a", "A")
        assert client(fake.url, ca_certificate=str(signed)).schema(schema_id).schema == "A"
        with pytest.raises(RegistryUnreachable, match="CERTIFICATE_VERIFY_FAILED"):
            client(fake.url, give_up_after="1 s").schema(schema_id)
