"""A software bill of materials for a release, in CycloneDX 1.6: https://cyclonedx.org/docs/1.6/json/.

It lists the pinned Python packages and the JARs, and inside a JAR the artifacts whose Maven metadata it contains.
"""

import hashlib
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5
from xml.etree import ElementTree

Component = dict[str, Any]

_PIN = re.compile(r"^(?P<name>[A-Za-z0-9][\w.-]*)==(?P<version>[^\s;\\]+)", re.MULTILINE)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_MAVEN = "{http://maven.apache.org/POM/4.0.0}"
_CLASSIFIER = "License :: "
_GAV = ("groupId", "artifactId", "version")


def sbom(name: str, version: str, requirements: str, pom: str, jars: Path) -> str:
    """The bill of materials of a release as JSON, given the contents of requirements.txt and pom.xml.

    Equal releases have equal bills: there is no time in it, and its serial number is a hash of the content.
    """
    components = [*python_components(requirements), *jar_components(jars, maven_coordinates(pom))]
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "bom-ref": name, "name": name, "version": version}},
        "components": components,
    }
    document["serialNumber"] = uuid5(NAMESPACE_URL, json.dumps(document)).urn
    return json.dumps(document, indent=2) + "\n"


def python_components(requirements: str) -> Iterator[Component]:
    """A component for each pin, with the hashes of its files, one of which gets installed, and the package's licence.

    The licence is known of packages that are installed here.
    """
    pins = list(_PIN.finditer(requirements))
    ends = [pin.start() for pin in pins[1:]] + [len(requirements)]
    for pin, end in zip(pins, ends):
        name, version = pin["name"], pin["version"]
        purl = f"pkg:pypi/{re.sub('[-_.]+', '-', name).lower()}@{version}"
        hashes = [{"alg": "SHA-256", "content": digest} for digest in _HASH.findall(requirements, pin.end(), end)]
        distribution = {"type": "distribution", "url": purl, "comment": "all files of this version", "hashes": hashes}
        yield {
            "type": "library",
            "bom-ref": purl,
            "name": name,
            "version": version,
            "purl": purl,
            **_licences(_python_licence(name, version)),
            "externalReferences": [distribution],
        }


def maven_coordinates(pom: str) -> dict[str, tuple[str, str, str]]:
    """Group, artifact and version of each artifact that a pom.xml copies, by the name of its file."""
    root = ElementTree.fromstring(pom)
    properties = {node.tag.removeprefix(_MAVEN): node.text or "" for node in root.find(f"{_MAVEN}properties")}

    def text(node: ElementTree.Element, tag: str) -> str:
        return re.sub(r"\$\{(.+?)\}", lambda name: properties[name[1]], node.findtext(f"{_MAVEN}{tag}"))

    items = [tuple(text(item, part) for part in _GAV) for item in root.iter(f"{_MAVEN}artifactItem")]
    return {f"{artifact}-{version}.jar": (group, artifact, version) for group, artifact, version in items}


def jar_components(jars: Path, coordinates: Mapping[str, tuple[str, str, str]]) -> Iterator[Component]:
    """A component for each JAR in a directory, with its hash. One without coordinates is the project's own."""
    for jar in sorted(jars.glob("*.jar")):
        content = jar.read_bytes()
        named = _maven_component(*coordinates[jar.name]) if jar.name in coordinates else {"name": jar.name}
        reference = {"bom-ref": named["purl"]} if "purl" in named else {}
        hashes = {"hashes": [{"alg": "SHA-256", "content": hashlib.sha256(content).hexdigest()}]}
        yield {"type": "library", **reference, **named, **hashes, **_contents(jar, named)}


def _contents(jar: Path, itself: Component) -> Component:
    """Licence and artifacts of a JAR, as far as it has metadata of them; nothing for what is no JAR."""
    if not zipfile.is_zipfile(jar):
        return {}
    with zipfile.ZipFile(jar) as archive:
        names = archive.namelist()
        inside = []
        for name in sorted(names):
            if re.fullmatch(r"META-INF/maven/[^/]+/[^/]+/pom\.properties", name):
                found = dict(re.findall(r"^(\w+)=(\S+)", archive.read(name).decode(errors="replace"), re.MULTILINE))
                if found.keys() >= set(_GAV):
                    inside.append(_maven_component(*(found[part] for part in _GAV)))
        texts = [archive.read(name)[:500] for name in names if re.fullmatch(r"META-INF/LICENSE(\.txt)?", name)]
    is_apache = any(b"Apache License" in text and b"Version 2.0" in text for text in texts)
    licence = {"licenses": [{"license": {"id": "Apache-2.0"}}]} if is_apache else {}
    others = [{"type": "library", **part} for part in inside if part.get("purl") != itself.get("purl")]
    return licence | ({"components": others} if others else {})


def _maven_component(group: str, artifact: str, version: str) -> Component:
    purl = f"pkg:maven/{group}/{artifact}@{version}"
    return {"group": group, "name": artifact, "version": version, "purl": purl}


@cache
def _python_licence(name: str, version: str) -> tuple[str, bool] | None:
    """The licence that an installed package states, and whether it is an expression of SPDX; None if not known."""
    try:
        stated = metadata(name)
    except PackageNotFoundError:
        return None
    if stated["Version"] != version:
        return None
    if expression := stated.get("License-Expression"):
        return expression, True
    classifiers = [text for text in stated.get_all("Classifier") or [] if text.startswith(_CLASSIFIER)]
    if classifiers:
        return " or ".join(text.rpartition(" :: ")[2] for text in classifiers), False
    licence = stated.get("License") or ""
    return (licence.splitlines()[0], False) if licence.strip() else None


def _licences(licence: tuple[str, bool] | None) -> Component:
    if licence is None:
        return {}
    text, is_expression = licence
    return {"licenses": [{"expression": text} if is_expression else {"license": {"name": text}}]}
