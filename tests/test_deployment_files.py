"""The files that are for other machines: as much of each as can be checked on this one. Their Serve settings are
checked in `test_yaml_check.py`."""

import re
import shlex
import warnings
from pathlib import Path
from typing import Any

import yaml

with warnings.catch_warnings():  # of crossplane's own
    warnings.simplefilter("ignore")
    import crossplane

from tests.conftest import ROOT

CONFIGS = ROOT / "configs"
# of the CustomResourceDefinition of RayService, ray.io/v1; an unknown field is refused or, worse, dropped
SERVICE_FIELDS = {
    *("serveConfigV2", "rayClusterConfig", "serveService", "upgradeStrategy", "excludeHeadPodFromServeSvc"),
    *("rayClusterDeletionDelaySeconds", "serviceUnhealthySecondThreshold", "deploymentUnhealthySecondThreshold"),
}
CLUSTER_FIELDS = {
    *("rayVersion", "headGroupSpec", "workerGroupSpecs", "enableInTreeAutoscaling", "autoscalerOptions", "suspend"),
    *("gcsFaultToleranceOptions", "headServiceAnnotations", "managedBy", "authOptions", "upgradeStrategy"),
}
HEAD_FIELDS = {"rayStartParams", "template", "serviceType", "enableIngress", "headService", "resources", "labels"}
WORKER_FIELDS = {
    *("groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template", "numOfHosts", "suspend"),
    *("idleTimeoutSeconds", "scaleStrategy", "resources", "labels"),
}


def settings(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((CONFIGS / name).read_text())
    return content


def manifest() -> dict[str, Any]:
    return settings("kuberay.yaml")["spec"]  # type: ignore[no-any-return]


def groups() -> list[dict[str, Any]]:
    cluster = manifest()["rayClusterConfig"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def container(group: dict[str, Any]) -> dict[str, Any]:
    (only,) = group["template"]["spec"]["containers"]
    assert isinstance(only, dict)
    return only


def test_the_manifest_has_only_fields_that_there_are() -> None:
    spec = manifest()
    cluster = spec["rayClusterConfig"]
    assert set(spec) <= SERVICE_FIELDS and set(cluster) <= CLUSTER_FIELDS
    assert set(cluster["headGroupSpec"]) <= HEAD_FIELDS
    for group in cluster["workerGroupSpecs"]:
        assert set(group) <= WORKER_FIELDS
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in groups():
        assert all(isinstance(value, str) for value in group["rayStartParams"].values()), "the operator takes strings"
        assert all(isinstance(entry.get("value", ""), str) for entry in container(group)["env"])


def test_kubernetes_serves_what_the_cluster_file_says() -> None:
    embedded, cluster = yaml.safe_load(manifest()["serveConfigV2"]), settings("cluster.yaml")
    inside, outside = embedded["applications"][0]["args"], cluster["applications"][0]["args"]
    assert inside.pop("api") == {"api_keys_variable": "COSYSERVE_API_KEYS", "max_streams_per_key": 64}
    assert inside["checkpoint"].startswith("/models/") and inside["preprocess"]["voice_store"].startswith("/models/")
    for arguments in (inside, outside):
        del arguments["checkpoint"], arguments["preprocess"]
    assert embedded == cluster


def test_head_and_workers_have_the_variables_that_the_cluster_file_asks_for() -> None:
    exported = dict(re.findall(r"(RAY_\w+)=(\S+)", (CONFIGS / "cluster.yaml").read_text()))
    assert {"RAY_SERVE_THROUGHPUT_OPTIMIZED", "RAY_SERVE_ENABLE_HA_PROXY"} <= set(exported)
    for group in groups():
        given = {entry["name"]: entry.get("value") for entry in container(group)["env"]}
        assert given.pop("COSYSERVE_API_KEYS") is None, "a secret, not a value"
        assert given == exported


def test_every_pod_is_probed_drains_and_has_no_rights() -> None:
    for group in groups():
        spec = group["template"]["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True and spec["securityContext"]["runAsUser"] != 0
        assert {"livenessProbe", "readinessProbe", "resources"} <= set(container(group))
        mounts = {mount["name"] for mount in container(group)["volumeMounts"]}
        assert mounts == {volume["name"] for volume in spec["volumes"]}
    deployments = yaml.safe_load(manifest()["serveConfigV2"])["applications"][0]["deployments"]
    drains_s = max(deployment.get("graceful_shutdown_timeout_s", 20) for deployment in deployments)
    for group in groups()[1:]:
        assert group["template"]["spec"]["terminationGracePeriodSeconds"] >= drains_s


def test_the_largest_fleet_has_the_gpus_it_needs() -> None:
    gpu = next(group for group in groups() if group.get("groupName") == "gpu")
    each = int(container(gpu)["resources"]["limits"]["nvidia.com/gpu"])
    assert each == int(gpu["rayStartParams"]["num-gpus"])
    synthesis = yaml.safe_load(manifest()["serveConfigV2"])["applications"][0]["deployments"][2]
    needed = synthesis["autoscaling_config"]["max_replicas"] * synthesis["ray_actor_options"]["num_gpus"]
    assert needed <= each * gpu["maxReplicas"]


def test_the_shares_of_the_gpu_add_up() -> None:
    application = settings("gpu.yaml")["applications"][0]
    synthesis = next(d for d in application["deployments"] if d["name"] == "Synthesis")
    replicas = synthesis["num_replicas"]
    assert replicas * synthesis["ray_actor_options"]["num_gpus"] == 1
    assert 0.8 <= replicas * application["args"]["synthesis"]["gpu_memory_share"] < 1


def instructions(path: Path) -> list[tuple[str, str]]:
    """(instruction, its arguments) of a Dockerfile, continuation lines joined."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    split = [line.split(None, 1) for line in joined.splitlines() if line.strip()]
    return [(name, " ".join(rest.split())) for name, rest in split]


def test_the_image_runs_without_rights_from_pinned_packages() -> None:
    steps = instructions(CONFIGS / "docker/Dockerfile")
    names = [name for name, _ in steps]
    known = {"ARG", "FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "CMD"}
    assert set(names) <= known and names.count("FROM") == 2
    final = steps[len(names) - names[::-1].index("FROM") - 1 :]
    users = [value for name, value in final if name == "USER"]
    assert users and users[-1] not in ("0", "root")
    after_user = [name for name, _ in final[[name for name, _ in final].index("USER") :]]
    assert "RUN" not in after_user and "COPY" not in after_user
    assert all(":" in value and "latest" not in value for name, value in steps if name == "FROM")
    runs = " ".join(value for name, value in steps if name == "RUN")
    assert "constraints.txt" in runs and ".ci/install serve" in runs and "sudo" not in runs
    for command in re.findall(r"apt-get install[^&]*", runs):
        assert "-y" in command and "--no-install-recommends" in command
    assert runs.count("apt-get update") == runs.count("rm -rf /var/lib/apt/lists/*")


def test_what_the_image_copies_is_there_and_not_ignored() -> None:
    kept = {
        line[1:] for line in (CONFIGS / "docker/Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    for name, value in instructions(CONFIGS / "docker/Dockerfile"):
        words = [word for word in shlex.split(value) if not word.startswith("--")]
        if name == "COPY" and "--from" not in value:
            for source in words[:-1]:
                assert (ROOT / source).exists(), source
                assert source in kept, source
    assert (ROOT / "configs/local.yaml").exists()


def test_nginx_passes_streams_through() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        payload = crossplane.parse(str(CONFIGS / "nginx.conf"), strict=True, check_ctx=False, combine=True)
    unknown = [fault["error"].split('"')[1] for fault in payload["errors"]]
    assert unknown == ["default", ""], "but for the keys of a map, which crossplane takes for directives"
    (config,) = payload["config"]
    server = next(block["block"] for block in config["parsed"] if block["directive"] == "server")
    location = next(block["block"] for block in server if block["directive"] == "location")
    given = {entry["directive"]: entry["args"] for entry in location if entry["directive"] != "proxy_set_header"}
    headers = dict(entry["args"] for entry in location if entry["directive"] == "proxy_set_header")
    assert given["proxy_buffering"] == given["proxy_request_buffering"] == given["gzip"] == ["off"]
    assert given["proxy_http_version"] == ["1.1"]
    assert headers["Upgrade"] == "$http_upgrade" and headers["Connection"] == "$cosyvoice_connection"
    silence_s = int(given["proxy_read_timeout"][0].removesuffix("s"))
    for name in ("gpu.yaml", "cluster.yaml"):
        assert silence_s > settings(name)["applications"][0]["args"]["synthesis"]["max_lead_s"]
