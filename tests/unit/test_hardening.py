"""Containers run without root and privileges, on a root file system that they can't write to; what is written to is
mounted.

The paths are those that Flink's image writes to (docker-entrypoint.sh of apache/flink-docker, flink-console.sh), and
those of the Python workers.
"""

from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).parents[2]
KUBERNETES = PROJECT / "conf" / "kubernetes"
COMPOSE = yaml.safe_load((PROJECT / "compose.yaml").read_text())
USER = 9999

#: Temporary files and RocksDB's state; the cache of the compiled features.
WRITTEN = {"/tmp", "/home/flink"}
LOG, CONF = "/opt/flink/log", "/opt/flink/conf"


def documents(file: str, kind: str) -> list[dict]:
    return [entry for entry in yaml.safe_load_all((KUBERNETES / file).read_text()) if entry["kind"] == kind]


def score_pod() -> dict:
    return documents("score-clicks.yaml", "FlinkDeployment")[0]["spec"]["podTemplate"]["spec"]


def retrain_pod() -> dict:
    return documents("retrain.yaml", "CronJob")[0]["spec"]["jobTemplate"]["spec"]["template"]["spec"]


@pytest.mark.parametrize("pod", [score_pod(), retrain_pod()], ids=["score", "retrain"])
def test_a_pod_has_no_privileges_and_writes_to_volumes_only(pod):
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "fsGroup": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
        assert {path for path, volume in mounts.items() if "emptyDir" in volume} >= WRITTEN


def test_flinks_pods_have_volumes_for_its_log_and_for_the_plugin_that_the_entrypoint_links():
    (container,) = score_pod()["containers"]
    paths = {mount["mountPath"] for mount in container["volumeMounts"]}
    plugin = next(entry["value"] for entry in container["env"] if entry["name"] == "ENABLE_BUILT_IN_PLUGINS")
    assert {LOG, f"/opt/flink/plugins/{plugin.removesuffix('.jar')}"} <= paths
    assert not paths & {"/opt/flink", "/opt/flink/plugins", CONF}  # would hide plugins, and the operator's settings


def test_the_template_of_the_task_managers_adds_to_the_common_one():
    spec = documents("score-clicks.yaml", "FlinkDeployment")[0]["spec"]
    assert [volume["name"] for volume in spec["taskManager"]["podTemplate"]["spec"]["volumes"]] == ["shared-memory"]
    assert spec["flinkConfiguration"]["kubernetes.operator.pod-template.merge-arrays-by-name"] == "true"


@pytest.mark.parametrize("service", [name for name, entry in COMPOSE["services"].items() if "build" in entry])
def test_a_container_of_the_image_has_no_privileges_and_writes_to_mounts_only(service):
    container = COMPOSE["services"][service]
    assert (container["read_only"], container["cap_drop"]) == (True, ["ALL"])
    assert container["security_opt"] == ["no-new-privileges:true"]
    tmpfs = dict(entry.split(":") for entry in container["tmpfs"])
    assert tmpfs.keys() == WRITTEN | {LOG}
    assert "exec" in tmpfs["/tmp"].split(",")  # RocksDB's native library is loaded from there
    assert {options for path, options in tmpfs.items() if path != "/tmp"} <= {
        f"mode={mode},uid={USER},gid={USER}" for mode in ("0700", "0755")
    }
    assert CONF in container["volumes"]


def test_the_image_runs_as_the_user_of_the_pods():
    lines = (PROJECT / "Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("USER")] == [f"USER {USER}:{USER}"]
    assert f"useradd --uid {USER} --gid flink --create-home flink" in "\n".join(lines)
