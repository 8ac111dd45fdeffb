"""deploy/ and docker-compose.yml, against the published schemas and against the service itself."""

from __future__ import annotations

import functools
import importlib
import importlib.resources
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from distbp.core import settings

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
KUBERNETES = "v1.34.0-local-strict"


def load(name: str) -> Any:
    """A script of deploy/, as a module."""
    sys.path.insert(0, str(DEPLOY))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(DEPLOY))


def documents(path: Path) -> list[dict[str, Any]]:
    return [found for found in yaml.safe_load_all(path.read_text("utf-8")) if found]


MANIFESTS = [
    pytest.param(found, id=f"{path.stem}-{found['kind']}-{found['metadata']['name']}")
    for path in sorted((DEPLOY / "kuberay").glob("*.yaml"))
    if path.name != "kustomization.yaml"
    for found in documents(path)
]

# docker-compose.yml ----------------------------------------------------------------------------------------

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & set(service)
    assert {"mem_limit", "cpus", "pids_limit", "healthcheck", "stop_grace_period", "restart"} <= set(service)
    ours = service["image"].endswith("distbp:local}")
    assert ours == (service.get("user") == "10001:10001")


def test_only_the_api_and_grafana_are_published_on_this_machine_only() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"api", "grafana"}
    assert SERVICES["grafana"]["profiles"] == ["observability"]
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)
    assert COMPOSE["networks"]["cluster"] == {"internal": True}
    on_the_outside = {name for name, s in SERVICES.items() if "outside" in s.get("networks", ())}
    assert on_the_outside == {"api", "grafana"}


def test_rays_token_is_in_a_volume_of_ray_and_the_dispatcher_only() -> None:
    mounts = {name for name, s in SERVICES.items() if any("ray-token:" in v for v in s.get("volumes", ()))}
    assert mounts == {"head", "worker", "dispatcher"}
    text = (ROOT / "docker-compose.yml").read_text("utf-8") + (DEPLOY / "Dockerfile").read_text("utf-8")
    assert "RAY_AUTH_MODE=token" in text
    assert not re.search(r"RAY_AUTH_TOKEN\b|PASSWORD|dbp_", text)


def test_settings_that_are_given_exist() -> None:
    texts = [path.read_text("utf-8") for path in (ROOT / "docker-compose.yml", DEPLOY / "Dockerfile")]
    texts += [path.read_text("utf-8") for path in DEPLOY.rglob("*.yaml")]
    named = set(re.findall(r"\bDISTBP_[A-Z_]+", "\n".join(texts))) - {"DISTBP_"}
    assert named
    assert named <= set(settings.SETTINGS)


def test_the_order_of_stopping() -> None:
    """What depends on others is stopped first: runners (on the head) may need workers for their checkpoint,
    and the API to say that they have left one."""
    assert {"worker", "api"} <= set(SERVICES["head"]["depends_on"])
    assert {"head", "api"} <= set(SERVICES["dispatcher"]["depends_on"])
    assert not {"head", "dispatcher"} & set(SERVICES["worker"].get("depends_on", ()))
    grace_s = float(SERVICES["head"]["stop_grace_period"].removesuffix("s"))
    assert grace_s > load("end_runners").WAIT_S + 10


RUNNER = """
import os, pathlib, shutil, signal, sys
proc = pathlib.Path(sys.argv[1])
def end(number, frame):
    shutil.rmtree(proc / str(os.getpid()))
    os._exit(0)
signal.signal(signal.SIGTERM, end if sys.argv[2] == "good" else signal.SIG_IGN)
(proc / str(os.getpid())).mkdir()
(proc / str(os.getpid()) / "cmdline").write_bytes(b"python\\0-m\\0distbp_service.runner\\0--job\\0job_1\\0")
print(flush=True)
signal.pause()
"""


def test_runners_are_asked_to_end_and_waited_for(tmp_path: Path) -> None:
    end_runners = load("end_runners")
    other = tmp_path / str(os.getpid())  # a shell, in whose argument the name is
    other.mkdir()
    (other / "cmdline").write_bytes(b"/bin/sh\0-c\0python -m distbp_service.runner --job job_1\0")
    (tmp_path / "4194305").mkdir()  # has just ended: no process has this number
    (tmp_path / "meminfo").touch()
    children = [
        subprocess.Popen([sys.executable, "-c", RUNNER, tmp_path, how], stdout=subprocess.PIPE)
        for how in ("good", "deaf")
    ]
    try:
        for child in children:
            assert child.stdout is not None
            child.stdout.readline()
        assert end_runners.end(0.0, tmp_path)[0] == 2
        children[0].wait(10)
        assert end_runners.end(0.1, tmp_path) == (1, 1)
    finally:
        for child in children:
            child.kill()
            child.communicate()
    shutil.rmtree(tmp_path / str(children[1].pid))
    assert end_runners.end(60.0, tmp_path) == (0, 0)


def test_a_worker_waits_for_the_token_and_the_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray_node = load("ray_node")
    token = tmp_path / "token"
    with socket.socket() as head:
        head.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{head.getsockname()[1]}"
        looks = []

        def look(seconds: float) -> None:
            looks.append(seconds)
            if len(looks) == 2:
                ray_node.make_token(token)
            if len(looks) == 4:
                head.listen()

        monkeypatch.setattr(ray_node.time, "sleep", look)
        ray_node.await_head(token, address)
    assert looks == [ray_node.LOOK_S] * 4
    assert len(token.read_text()) == 64


def test_a_node_takes_the_kernels_of_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray_node = load("ray_node")
    image, cache = tmp_path / "image", tmp_path / "cache"
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    ray_node.take_kernels(image)  # nothing to take, and nowhere to
    image.mkdir()
    (image / "a.nbi").write_text("compiled")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(cache))
    ray_node.take_kernels(image)
    assert (cache / "a.nbi").read_text() == "compiled"
    (cache / "a.nbi").write_text("of this node")
    ray_node.take_kernels(image)
    assert (cache / "a.nbi").read_text() == "of this node"
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(image / "a.nbi" / "cache"))
    ray_node.take_kernels(image)  # refused: they will be compiled
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "image"]


def test_requirements_of_the_image(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, DEPLOY / "requirements.py", ROOT / "pyproject.toml", "fast", "digits", "cluster"],
        capture_output=True,
        text=True,
        check=True,
    )
    names = {re.split(r"[^\w\[\]-]", line)[0] for line in done.stdout.splitlines()}
    assert {"setuptools", "numpy", "ray[default]", "numba", "scikit-learn", "fastapi", "sqlalchemy"} <= names
    assert not any(name.startswith("distbp") for name in names)


# Kubernetes ------------------------------------------------------------------------------------------------


@functools.cache
def validator(name: str) -> jsonschema.Draft202012Validator:
    """Of one of Kubernetes' own schemas, with what it refers to."""
    package = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    folder = importlib.resources.files(package) / "kubernetes-json-schema" / KUBERNETES
    schema, shared = (
        json.loads((folder / f"{file}.json").read_text("utf-8").replace('"/api/_definitions.json#', '"#'))
        for file in (name, "_definitions")
    )
    return jsonschema.Draft202012Validator({**schema, "$defs": shared["$defs"]})


def check_kubernetes(value: Any, name: str) -> None:
    validator(name).validate(value)


SCHEMAS = {
    "Namespace": "namespace-v1",
    "PersistentVolumeClaim": "persistentvolumeclaim-v1",
    "Deployment": "deployment-apps-v1",
    "Service": "service-v1",
    "NetworkPolicy": "networkpolicy-networking-v1",
}


@pytest.mark.parametrize("manifest", [m for m in MANIFESTS if m.values[0]["kind"] != "RayCluster"])
def test_manifests_fit_kubernetes_schemas(manifest: dict[str, Any]) -> None:
    check_kubernetes(manifest, SCHEMAS[manifest["kind"]])


# The fields of KubeRay 1.6's RayCluster (ray.io/v1), from its API reference; where one is a thing of
# Kubernetes, the schema to check it with.
POD = "podtemplatespec-v1"
HEAD = {"serviceType": str, "rayStartParams": dict, "template": POD}
WORKERS = {
    "groupName": str,
    "replicas": int,
    "minReplicas": int,
    "maxReplicas": int,
    "rayStartParams": dict,
    "template": POD,
}
AUTOSCALER = {
    "version": ("v1", "v2"),
    "upscalingMode": ("Default", "Aggressive", "Conservative"),
    "idleTimeoutSeconds": int,
    "resources": "resourcerequirements-v1",
    "securityContext": "securitycontext-v1",
}
RAY_CLUSTER = {
    "rayVersion": str,
    "authOptions": {"mode": ("token", "disabled"), "secretName": str},
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions": AUTOSCALER,
    "headGroupSpec": HEAD,
    "workerGroupSpecs": [WORKERS],
}


def check_fields(value: Any, wanted: Any, where: str) -> None:
    if isinstance(wanted, str):
        check_kubernetes(value, wanted)
    elif isinstance(wanted, list):
        for index, one in enumerate(value):
            check_fields(one, wanted[0], f"{where}[{index}]")
    elif isinstance(wanted, dict):
        for name, inner in value.items():
            assert name in wanted, f"{where}.{name} is no field"
            check_fields(inner, wanted[name], f"{where}.{name}")
    elif isinstance(wanted, tuple):
        assert value in wanted, where
    else:
        assert isinstance(value, wanted), where
        if wanted is dict:  # options of `ray start` are texts
            assert all(isinstance(text, str) for text in value.values()), where


def ray_cluster() -> dict[str, Any]:
    (found,) = documents(DEPLOY / "kuberay" / "ray-cluster.yaml")
    return found


def test_ray_cluster_fits_kuberay() -> None:
    found = ray_cluster()
    assert (found["apiVersion"], found["kind"]) == ("ray.io/v1", "RayCluster")
    check_fields(found["spec"], RAY_CLUSTER, "spec")
    assert found["spec"]["authOptions"]["mode"] == "token"
    pins = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    assert f"ray=={found['spec']['rayVersion']}" in pins


def pods() -> Iterator[dict[str, Any]]:
    spec = ray_cluster()["spec"]
    yield spec["headGroupSpec"]["template"]["spec"]
    yield from (group["template"]["spec"] for group in spec["workerGroupSpecs"])
    for manifest in documents(DEPLOY / "kuberay" / "service.yaml"):
        if manifest["kind"] == "Deployment":
            yield manifest["spec"]["template"]["spec"]


def test_pods_are_confined() -> None:
    found = list(pods())
    assert len(found) == 4
    for pod in found:
        assert pod["securityContext"]["runAsUser"] == 10001
        for container in pod["containers"]:
            assert container["image"] == "distbp"
            confined = container["securityContext"]
            assert confined["readOnlyRootFilesystem"]
            assert confined["runAsNonRoot"]
            assert confined["allowPrivilegeEscalation"] is False
            assert confined["capabilities"] == {"drop": ["ALL"]}
            assert set(container["resources"]) == {"requests", "limits"}
            named = {mount["name"] for mount in container["volumeMounts"]}
            assert named == {volume["name"] for volume in pod["volumes"]}


def test_kustomization_names_every_manifest() -> None:
    (found,) = documents(DEPLOY / "kuberay" / "kustomization.yaml")
    files = {path.name for path in (DEPLOY / "kuberay").glob("*.yaml")} - {"kustomization.yaml"}
    assert set(found["resources"]) == files


# Machines --------------------------------------------------------------------------------------------------


def test_cluster_file_for_machines_fits_rays_schema() -> None:
    # Not by importing Ray, which would read its authentication mode, and keep it for all later tests.
    spec = importlib.util.find_spec("ray")
    assert spec is not None
    assert spec.submodule_search_locations
    schema = Path(spec.submodule_search_locations[0]) / "autoscaler" / "ray-schema.json"
    (found,) = documents(DEPLOY / "ray-cluster.yaml")
    jsonschema.validate(found, json.loads(schema.read_text("utf-8")))
    for command in (*found["head_start_ray_commands"], *found["worker_start_ray_commands"]):
        assert "ray start" not in command or "RAY_AUTH_MODE=token" in command


# Prometheus and Grafana ------------------------------------------------------------------------------------


def served_metrics(tmp_path: Path) -> set[str]:
    from distbp_service.api.telemetry import Telemetry
    from distbp_service.store import Store

    store = Store(f"sqlite:///{tmp_path / 'store.db'}")
    try:
        telemetry = Telemetry(store)
        telemetry.answered("GET", "/livez", 200, 0.01)
        text = telemetry.text().decode()
    finally:
        store.close()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {re.split(r"[{ ]", line)[0] for line in lines}


def expressions() -> list[str]:
    board = json.loads((DEPLOY / "grafana" / "dashboards" / "distbp.json").read_text("utf-8"))
    assert board["uid"] == "distbp"
    found = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    for group in yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text("utf-8"))["groups"]:
        found += [rule["expr"] for rule in group["rules"]]
    return found


def test_dashboard_and_alerts_use_metrics_that_are_served(tmp_path: Path) -> None:
    used = {name for text in expressions() for name in re.findall(r"\bdistbp_\w+", text)}
    served = served_metrics(tmp_path) | {"distbp_jobs"}  # of a store without jobs there are none
    assert used
    assert used <= served, sorted(used - served)


def test_states_that_are_named_exist() -> None:
    from typing import get_args

    from distbp.client.names import State

    named = {
        s for text in expressions() for m in re.findall(r'state=~?"([^"]+)"', text) for s in m.split("|")
    }
    assert named <= set(get_args(State))


@pytest.mark.parametrize(("command", "name"), [("config", "prometheus.yml"), ("rules", "rules.yml")])
def test_promtool_accepts(command: str, name: str) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    file = DEPLOY / "prometheus" / name
    done = subprocess.run([promtool, "check", command, file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_expressions_of_the_dashboard_are_promql(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    rules = [{"record": f"checked:panel:{n}", "expr": text} for n, text in enumerate(expressions())]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "checked", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_slim_requirements_are_those_of_the_package_without_ray() -> None:
    lines = (DEPLOY / "requirements-slim.txt").read_text("utf-8").splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert [line for line in lines if not line.startswith("#")] == [
        text for text in project["dependencies"] if not text.startswith("ray")
    ]


def test_lowest_versions_are_the_bounds() -> None:
    done = subprocess.run(
        [sys.executable, DEPLOY / "requirements.py", ROOT / "pyproject.toml", "--lowest", "service"],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert {"numpy==2", "fastapi==0.118", "ray==2.56", "httpx==0.27"} <= set(lines)
    assert all("==" in line for line in lines)
