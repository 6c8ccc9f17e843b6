"""Kubernetes manifests: core objects against Kubernetes' own schemas, KubeRay's objects field by field."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tests.infra.conftest import INFRA, Tool, documents

FOLDER = INFRA / "kubernetes"
KUBERNETES = "1.34.0"

#: The fields of KubeRay's objects (ray.io/v1) that the manifests may use. A field that is misspelt is dropped without a word.
CLUSTER = {"rayVersion", "enableInTreeAutoscaling", "autoscalerOptions", "authOptions", "headGroupSpec", "workerGroupSpecs"}
AUTOSCALER = {"version", "idleTimeoutSeconds", "upscalingMode", "resources", "securityContext", "env", "imagePullPolicy"}
GROUP = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template", "idleTimeoutSeconds"}
JOB = {
    "submissionMode", "entrypoint", "backoffLimit", "activeDeadlineSeconds", "preRunningDeadlineSeconds",
    "shutdownAfterJobFinishes", "deletionStrategy", "submitterPodTemplate", "rayClusterSpec", "ttlSecondsAfterFinished",
}  # fmt: skip
CRON_JOB = {"schedule", "timeZone", "jobTemplate", "suspend"}


def only(path: str) -> dict[str, Any]:
    (document,) = documents(FOLDER / path)
    return document


@pytest.fixture(params=["raycluster", "rayjob", "raycronjob"])
def cluster(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The description of the cluster in each of the three manifests."""
    spec = only(f"{request.param}.yaml")["spec"]
    if request.param == "raycronjob":
        assert set(spec) <= CRON_JOB
        spec = spec["jobTemplate"]
    if request.param != "raycluster":
        assert set(spec) <= JOB
        spec = spec["rayClusterSpec"]
    return spec


def workers(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {group["groupName"]: group for group in spec["workerGroupSpecs"]}


def pod(group: dict[str, Any]) -> dict[str, Any]:
    return group["template"]["spec"]


def test_core_objects_are_valid() -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    for name in ("namespace", "storage", "network", "disruption", "secrets.example"):
        for document in documents(FOLDER / f"{name}.yaml"):
            kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_every_pod_is_valid(cluster: dict[str, Any]) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        template = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": group["template"]}
        kubernetes_validate.validate(template, KUBERNETES, strict=True)


def test_only_fields_that_kuberay_knows(cluster: dict[str, Any]) -> None:
    assert set(cluster) <= CLUSTER
    assert set(cluster["autoscalerOptions"]) <= AUTOSCALER
    assert set(cluster["headGroupSpec"]) <= {"rayStartParams", "template"}
    for group in cluster["workerGroupSpecs"]:
        assert set(group) <= GROUP
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())


def test_the_cluster_is_the_same_in_all_three() -> None:
    job = only("rayjob.yaml")["spec"]
    assert only("raycronjob.yaml")["spec"]["jobTemplate"] == job
    assert job["rayClusterSpec"] == only("raycluster.yaml")["spec"]


def test_ray_is_the_version_that_is_installed(cluster: dict[str, Any]) -> None:
    assert cluster["rayVersion"] == version("ray")


def test_the_head_runs_no_actor_and_is_never_evicted(cluster: dict[str, Any]) -> None:
    head = cluster["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert head["template"]["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    assert not pod(head).get("tolerations")


def test_the_autoscaler_starts_at_nothing(cluster: dict[str, Any]) -> None:
    assert cluster["enableInTreeAutoscaling"]
    assert cluster["autoscalerOptions"]["version"] == "v2"
    assert {name: group["minReplicas"] for name, group in workers(cluster).items()} == {"cpu": 0, "gpu": 0}


def test_workers_are_drained_before_they_go(cluster: dict[str, Any]) -> None:
    for group in cluster["workerGroupSpecs"]:
        (container,) = pod(group)["containers"]
        name, verb, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
        assert (name, verb) == ("ctmr-role", "drain")
        assert int(seconds) < pod(group)["terminationGracePeriodSeconds"]
        assert any("spot" in toleration["key"] for toleration in pod(group)["tolerations"])


def test_gpus_are_asked_for_by_their_group_only(cluster: dict[str, Any]) -> None:
    asked = {
        name: container["resources"]["limits"].get("nvidia.com/gpu")
        for name, group in workers(cluster).items()
        for container in pod(group)["containers"]
    }
    assert asked == {"cpu": None, "gpu": "1"}
    assert workers(cluster)["gpu"]["rayStartParams"]["num-gpus"] == "1"


def test_pods_have_no_root_and_bounded_memory(cluster: dict[str, Any]) -> None:
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        for container in pod(group)["containers"]:
            assert container["securityContext"]["runAsNonRoot"]
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]


def test_secrets_are_references(cluster: dict[str, Any]) -> None:
    known = {document["metadata"]["name"]: document["stringData"] for document in documents(FOLDER / "secrets.example.yaml")}
    assert cluster["authOptions"] == {"mode": "token", "secretName": "factory-ray-token"}
    assert "auth_token" in known["factory-ray-token"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        for variable in pod(group)["containers"][0]["env"]:
            if re.search(r"PASSWORD|SECRET|TOKEN|AUTH|ACCESS_KEY", variable["name"]):
                reference = variable["valueFrom"]["secretKeyRef"]
                assert reference["key"] in known[reference["name"]]
    assert all(value == "" for values in known.values() for value in values.values())


def test_finished_jobs_are_cleared_away_in_steps() -> None:
    rules = only("rayjob.yaml")["spec"]["deletionStrategy"]["deletionRules"]
    for status in ("SUCCEEDED", "FAILED"):
        steps = [(r["policy"], r["condition"]["ttlSeconds"]) for r in rules if r["condition"]["jobStatus"] == status]
        assert [policy for policy, _ in steps] == ["DeleteWorkers", "DeleteCluster", "DeleteSelf"]
        assert [seconds for _, seconds in steps] == sorted(seconds for _, seconds in steps)


def test_kustomize_puts_in_the_registry(tool: Tool, tmp_path: Path) -> None:
    found = tool("kubectl", "kustomize", FOLDER)
    assert found.returncode == 0, found.stderr
    images = re.findall(r"image: (\S+)", found.stdout)
    assert len(images) == 3
    assert all(image.startswith("registry.example.org/ctmr-factory:") for image in images)
    assert "secret" not in {line.strip().lower() for line in found.stdout.splitlines() if line.startswith("kind:")}
