"""Files of deployment against the tools and schemas of what they are for: `make validate`. Nothing is deployed."""

import copy
import os
import subprocess
import zipfile
from pathlib import Path

import jsonschema
import pytest
import yaml

from jobs.common.settings import load_settings, shared_memory_bytes
from tools.sbom import sbom

PROJECT = Path(__file__).parents[2]
VALIDATORS = PROJECT / "build" / "validators"
KUBERNETES = sorted((PROJECT / "conf" / "kubernetes").glob("*.yaml"))
KUBERNETES_VERSION = "1.33"
CRD = "META-INF/fabric8/flinkdeployments.flink.apache.org-v1.yml"
#: The newest schema that the package registries have is of operator 1.10; 1.14 differs here in nothing but this.
NEWER_FLINK_VERSIONS = ["v2_1", "v2_2"]

#: Exits with 1 if the file has an error.
VALIDATE_SBOM = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
sys.exit(JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read()) is not None)
"""


def run(*command: str, **environment: str) -> subprocess.CompletedProcess:
    path = f"{VALIDATORS / 'bin'}:{os.environ['PATH']}"
    return subprocess.run(
        command, env={"PATH": path, **environment}, cwd=PROJECT, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def flink_deployment_schema() -> dict:
    """The operator's schema of a FlinkDeployment, in which what it does not name is an error."""
    (jar,) = VALIDATORS.glob("flink-kubernetes-operator-api-*.jar")
    crd = yaml.safe_load(zipfile.ZipFile(jar).read(CRD))
    (version,) = (version for version in crd["spec"]["versions"] if version["name"] == "v1beta1")
    schema = copy.deepcopy(version["schema"]["openAPIV3Schema"])
    schema["properties"] |= {"apiVersion": {"type": "string"}, "kind": {"const": "FlinkDeployment"}, "metadata": {}}
    schema["properties"]["spec"]["properties"]["flinkVersion"]["enum"] += NEWER_FLINK_VERSIONS
    forbid_unknown(schema)
    return schema


def forbid_unknown(schema: dict) -> None:
    """Make a property without a schema an error, which a cluster would drop silently."""
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema["additionalProperties"] = False
    for inner in [*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")]:
        if isinstance(inner, dict):
            forbid_unknown(inner)


def documents(kind: str) -> list[dict]:
    found = [document for file in KUBERNETES for document in yaml.safe_load_all(file.read_text())]
    return [document for document in found if document["kind"] == kind]


def test_hadolint_has_nothing_to_say_about_the_dockerfile():
    ran = run("hadolint", "Dockerfile")
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_docker_compose_accepts_compose_yaml():
    ran = run("docker-compose", "--file", "compose.yaml", "config", "--quiet", MODEL="/bundle", GRAFANA_PASSWORD="x")
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize("missing", ["MODEL", "GRAFANA_PASSWORD"])
def test_docker_compose_refuses_to_start_without_model_or_password(missing):
    given = {"MODEL": "/bundle", "GRAFANA_PASSWORD": "x"}
    del given[missing]
    ran = run("docker-compose", "--file", "compose.yaml", "config", "--quiet", **given)
    assert ran.returncode != 0
    assert missing in ran.stderr


@pytest.mark.parametrize("file", KUBERNETES, ids=lambda file: file.name)
def test_kubernetes_knows_all_that_is_its_own(file, tmp_path):
    own = [document for document in yaml.safe_load_all(file.read_text()) if "flink" not in document["apiVersion"]]
    assert own
    (tmp_path / file.name).write_text(yaml.safe_dump_all(own))
    ran = run("kubernetes-validate", "--strict", "-k", KUBERNETES_VERSION, str(tmp_path / file.name))
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_operator_s_schema_takes_the_deployment(flink_deployment_schema):
    (deployment,) = documents("FlinkDeployment")
    jsonschema.validate(deployment, flink_deployment_schema)


def test_the_deployment_logs_as_the_image_does():
    (deployment,) = documents("FlinkDeployment")
    logging = deployment["spec"]["logConfiguration"]["log4j-console.properties"]
    assert logging == (PROJECT / "conf" / "log4j-console.properties").read_text()


def test_the_operator_s_schema_refuses_what_it_does_not_know(flink_deployment_schema):
    (deployment,) = documents("FlinkDeployment")
    deployment["spec"]["job"]["upgradMode"] = "savepoint"
    with pytest.raises(jsonschema.ValidationError, match="upgradMode"):
        jsonschema.validate(deployment, flink_deployment_schema)


def test_flink_s_pods_are_checked_by_kubernetes_own_schema_too(tmp_path):
    (deployment,) = documents("FlinkDeployment")
    templates = [deployment["spec"]["podTemplate"], deployment["spec"]["taskManager"]["podTemplate"]]
    pods = [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **template} for template in templates]
    (tmp_path / "pods.yaml").write_text(yaml.safe_dump_all(pods))
    ran = run("kubernetes-validate", "--strict", "-k", KUBERNETES_VERSION, str(tmp_path / "pods.yaml"))
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_task_managers_have_room_for_the_memory_that_workers_share():
    settings = load_settings(PROJECT / "conf" / "base.yaml", (), {})
    (deployment,) = documents("FlinkDeployment")
    slots = int(deployment["spec"]["flinkConfiguration"]["taskmanager.numberOfTaskSlots"])
    (volume,) = deployment["spec"]["taskManager"]["podTemplate"]["spec"]["volumes"]
    assert volume["emptyDir"] == {"medium": "Memory", "sizeLimit": "2Gi"}
    assert slots * shared_memory_bytes(settings) < 1 << 30


def test_the_bill_of_materials_keeps_to_the_schema_of_cyclonedx(tmp_path):
    requirements, pom = ((PROJECT / file).read_text() for file in ("requirements.txt", "pom.xml"))
    bill = tmp_path / "sbom.cdx.json"
    bill.write_text(sbom("purchase-intent", "0.1.0", requirements, pom, PROJECT / "build" / "jars" / "job"))
    assert run("python", "-c", VALIDATE_SBOM, str(bill)).returncode == 0
    bill.write_text(bill.read_text().replace("SHA-256", "SHA-255", 1))
    assert run("python", "-c", VALIDATE_SBOM, str(bill)).returncode != 0
