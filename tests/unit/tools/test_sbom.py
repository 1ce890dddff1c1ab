"""The bill of materials of a release: each pin and each JAR, with versions, hashes and licences."""

import json
import re
import zipfile
from hashlib import sha256
from importlib.metadata import version

import pytest

from tools.paths import PROJECT
from tools.sbom import sbom

REQUIREMENTS = (PROJECT / "requirements.txt").read_text()
POM = (PROJECT / "pom.xml").read_text()
CONNECTOR = "flink-sql-connector-kafka-5.0.0-2.2.jar"
INSIDE = "groupId={}\nartifactId={}\nversion={}\n"


@pytest.fixture
def jars(tmp_path):
    with zipfile.ZipFile(tmp_path / CONNECTOR, "w") as jar:
        jar.writestr("META-INF/LICENSE", "  Apache License\n  Version 2.0, January 2004\n")
        for group, artifact, number in (
            ("org.apache.kafka", "kafka-clients", "4.0.0"),
            ("org.apache.flink", "flink-sql-connector-kafka", "5.0.0-2.2"),
        ):
            content = INSIDE.format(group, artifact, number)
            jar.writestr(f"META-INF/maven/{group}/{artifact}/pom.properties", content)
    (tmp_path / "batch-operators.jar").write_bytes(b"no archive")
    return tmp_path


@pytest.fixture
def bill(jars) -> dict:
    return json.loads(sbom("purchase-intent", "0.1.0", REQUIREMENTS, POM, jars))


def test_each_pin_is_listed_with_all_hashes_of_its_version(bill):
    python = {part["name"]: part for part in bill["components"] if part.get("purl", "").startswith("pkg:pypi/")}
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)", REQUIREMENTS, re.MULTILINE))
    assert {name: part["version"] for name, part in python.items()} == pins
    hashes = [entry for part in python.values() for entry in part["externalReferences"][0]["hashes"]]
    assert sorted(entry["content"] for entry in hashes) == sorted(re.findall(r"sha256:(\w+)", REQUIREMENTS))
    numpy = next(block for block in re.split(r"\n(?=\w)", REQUIREMENTS) if block.startswith("numpy=="))
    listed = python["numpy"]["externalReferences"][0]["hashes"]
    assert [entry["content"] for entry in listed] == re.findall(r"sha256:(\w+)", numpy)


def test_licences_are_those_that_the_installed_packages_state():
    pins = f"msgspec=={version('msgspec')} \\\n    --hash=sha256:{'0' * 64}\nnumpy==0.0.1\nno-such-package==1\n"
    parts = json.loads(sbom("x", "1", pins, POM, PROJECT / "conf"))["components"]
    assert [part.get("licenses") for part in parts] == [[{"expression": "BSD-3-Clause"}], None, None]
    assert [part["purl"] for part in parts][1:] == ["pkg:pypi/numpy@0.0.1", "pkg:pypi/no-such-package@1"]


def test_a_jar_has_its_coordinates_hash_licence_and_what_is_inside(bill, jars):
    own, connector = (part for part in bill["components"] if not part.get("purl", "").startswith("pkg:pypi/"))
    assert own == {
        "type": "library",
        "name": "batch-operators.jar",
        "hashes": [{"alg": "SHA-256", "content": sha256(b"no archive").hexdigest()}],
    }
    assert connector["purl"] == "pkg:maven/org.apache.flink/flink-sql-connector-kafka@5.0.0-2.2"
    assert connector["hashes"][0]["content"] == sha256((jars / CONNECTOR).read_bytes()).hexdigest()
    assert connector["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert [part["purl"] for part in connector["components"]] == ["pkg:maven/org.apache.kafka/kafka-clients@4.0.0"]


def test_equal_releases_have_equal_bills_and_no_reference_is_given_twice(bill, jars):
    assert json.loads(sbom("purchase-intent", "0.1.0", REQUIREMENTS, POM, jars)) == bill
    other = json.loads(sbom("purchase-intent", "0.1.1", REQUIREMENTS, POM, jars))
    assert other["serialNumber"] != bill["serialNumber"]
    references = [part["bom-ref"] for part in bill["components"] if "bom-ref" in part]
    assert len(references) == len(set(references))
