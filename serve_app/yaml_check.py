"""A strict look at a Serve YAML: every misspelt key, impossible value and missing file at once, before anything starts.

Serve itself accepts keys that it does not know. Which there are is read from Ray's own schema, given by the caller.
"""

import ipaddress
import os
import warnings
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from serve_app.checkpoint_files import missing_files
from serve_app.config import AppConfig, LiveApiConfig, LiveSynthesisConfig, PreprocessConfig
from serve_app.limit_faults import argument, is_number, limit_faults, policy_faults
from serve_app.schema_faults import Finding, Place, schema_faults, suggestion, unknown_key

IMPORT_PATH = "serve_app.app:build"
GRAPH = ("Ingress", "Preprocess", "Synthesis")
LIVE: dict[str, type[BaseModel]] = {"Ingress": LiveApiConfig, "Synthesis": LiveSynthesisConfig}
"""What the `user_config` of a deployment may hold."""
_MANIFEST = ("spec", "serveConfigV2")


@dataclass(frozen=True, slots=True)
class Machine:
    """What this machine has; asking for more is a warning, since a YAML may be meant for another."""

    cpus: float
    gpus: float


@dataclass(frozen=True, slots=True)
class Checker:
    """schema: `ray.serve.schema.ServeDeploySchema`. policy: `ray.serve.config.AutoscalingPolicy`, which the schema
    takes unseen for a whole application. runtime_env_keys: `ray.runtime_env.RuntimeEnv.known_fields`.

    machine, look_at_files: None and False leave out what depends on where the check runs.
    """

    schema: type[BaseModel]
    policy: type[BaseModel]
    runtime_env_keys: frozenset[str]
    machine: Machine | None
    look_at_files: bool = True

    def check_file(self, path: Path) -> list[Finding]:
        """Findings in the order of the file. Raises OSError, UnicodeDecodeError."""
        try:
            documents = [document for document in yaml.load_all(path.read_text("utf-8"), _Strict) if document]
        except yaml.YAMLError as error:
            return [Finding((), f"is not YAML: {_first_problem(error)}")]
        if not documents:
            return [Finding((), "is empty")]
        services = [document for document in documents if _is_ray_service(document)]
        if services:
            return [finding for service in services for finding in self._check_ray_service(service)]
        if len(documents) > 1:
            return [Finding((), "holds several documents, and none is a RayService")]
        return self.check(documents[0])

    def check(self, content: object) -> list[Finding]:
        """Findings in what a Serve YAML holds."""
        with warnings.catch_warnings(record=True) as deprecations:
            warnings.simplefilter("always")
            findings = schema_faults(self.schema, content)
        findings += dict.fromkeys(Finding((), str(w.message), is_fault=False) for w in deprecations)
        if not isinstance(content, dict):
            return findings
        findings += _runtime_env_faults(content, (), self.runtime_env_keys)
        applications = content.get("applications")
        for index, application in _mappings(applications):
            findings += self._check_application(application, ("applications", index))
        if isinstance(applications, list) and not applications:
            findings.append(Finding(("applications",), "there is none"))
        return [*findings, *_exposure(content), *self._check_demand(content)]

    def _check_ray_service(self, manifest: Mapping[str, Any]) -> list[Finding]:
        """The Serve settings inside a Kubernetes manifest; its paths and machines are elsewhere."""
        inner = (manifest.get("spec") or {}).get("serveConfigV2")
        if not isinstance(inner, str):
            return [Finding(_MANIFEST, "must be the Serve settings as a string")]
        try:
            content = yaml.load(inner, _Strict)
        except yaml.YAMLError as error:
            return [Finding(_MANIFEST, f"is not YAML: {_first_problem(error)}")]
        elsewhere = replace(self, machine=None, look_at_files=False)
        return [Finding((*_MANIFEST, *f.place), f.message, f.is_fault) for f in elsewhere.check(content)]

    def _check_application(self, application: Mapping[str, Any], place: Place) -> Iterator[Finding]:
        if application.get("autoscaling_policy") is not None:
            yield from schema_faults(self.policy, application["autoscaling_policy"], (*place, "autoscaling_policy"))
            yield from policy_faults(application["autoscaling_policy"], (*place, "autoscaling_policy"))
        path = application.get("import_path")
        if path != IMPORT_PATH:
            ours = isinstance(path, str) and path.split(".")[0] == "serve_app"
            message = (
                f"must be {IMPORT_PATH}" if ours else "another program's: its args and deployments are not checked"
            )
            yield Finding((*place, "import_path"), message, is_fault=ours)
            return
        arguments = application.get("args", {})
        yield from schema_faults(AppConfig, arguments, (*place, "args"))
        if isinstance(arguments, dict) and self.look_at_files:
            yield from _file_faults(arguments, (*place, "args"))
        known = _mappings(application.get("deployments"))
        counts = Counter(str(deployment.get("name")) for _, deployment in known)
        for index, deployment in known:
            name, where = str(deployment.get("name")), (*place, "deployments", index)
            if "name" in deployment and name not in GRAPH:
                yield Finding((*where, "name"), f"the graph has no {name}{suggestion(name, GRAPH)}")
            elif counts[name] > 1:
                yield Finding((*where, "name"), f"{name} occurs {counts[name]} times")
            yield from limit_faults(deployment, where, arguments)
            yield from _live_faults(deployment, (*where, "user_config"))

    def _check_demand(self, content: Mapping[str, Any]) -> list[Finding]:
        """A warning for each resource of which the replicas that always run need more than there is here."""
        if self.machine is None:
            return []
        findings = []
        for option, available, unit in (
            ("num_cpus", self.machine.cpus, "CPU"),
            ("num_gpus", self.machine.gpus, "GPU"),
        ):
            demand = sum(_demand(deployment, option) for deployment in _deployments(content))
            if demand > available:
                message = f"the replicas need {demand:g} {unit} from the start; this machine has {available:g}"
                findings.append(Finding(("applications",), message, is_fault=False))
        return findings


class _Strict(yaml.SafeLoader):
    """Refuses a key that is there twice; YAML's own reader keeps the last one."""


def _mapping_without_doubles(loader: _Strict, node: yaml.MappingNode) -> dict[Hashable, Any]:
    keys = Counter(key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge")
    doubles = [key for key, count in keys.items() if count > 1]
    if doubles:
        raise yaml.constructor.ConstructorError(None, None, f"the key {doubles[0]} is there twice", node.start_mark)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_doubles)


def this_machine() -> Machine:
    """Cores that this process may use, and GPUs that NVIDIA's driver shows."""
    gpus = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    return Machine(
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, gpus=gpus
    )


def _first_problem(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}: " if mark else ""
    return where + (getattr(error, "problem", None) or str(error).splitlines()[0])


def _is_ray_service(document: object) -> bool:
    return isinstance(document, dict) and document.get("kind") == "RayService"


def _runtime_env_faults(data: object, place: Place, known: frozenset[str]) -> Iterator[Finding]:
    """Keys of every `runtime_env` that Ray does not know: its schema takes any."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        if key == "runtime_env" and isinstance(value, dict):
            yield from (Finding((*place, key, k), unknown_key(k, known)) for k in value if k not in known)
        elif key not in ("args", "user_config"):
            yield from _runtime_env_faults(value, (*place, key), known)


def _file_faults(arguments: Mapping[str, Any], place: Place) -> Iterator[Finding]:
    """Missing files, also when other arguments are wrong."""
    checkpoint = arguments.get("checkpoint")
    if isinstance(checkpoint, str) and not Path(checkpoint).is_dir():
        yield Finding((*place, "checkpoint"), f"there is no folder {checkpoint}")
    elif isinstance(checkpoint, str):
        for name in missing_files(Path(checkpoint)):
            yield Finding((*place, "checkpoint"), f"{checkpoint} lacks {name}")
    voices = argument(arguments, "preprocess", "voices_dir", PreprocessConfig().voices_dir)
    if isinstance(voices, str | Path) and not Path(voices).is_dir():
        yield Finding((*place, "preprocess", "voices_dir"), f"there is no folder {voices}")
    keys = argument(arguments, "api", "api_keys_file", None)
    if isinstance(keys, str) and not Path(keys).is_file():
        yield Finding((*place, "api", "api_keys_file"), f"there is no file {keys}")


def has_keys(content: Mapping[str, Any]) -> bool:
    """Whether every application of ours in a Serve YAML asks for API keys."""
    ours = [a for _, a in _mappings(content.get("applications")) if a.get("import_path") == IMPORT_PATH]
    names = ("api_keys_file", "api_keys_variable")
    return all(any(argument(a.get("args"), "api", name, None) for name in names) for a in ours)


def is_loopback(host: object) -> bool:
    """Whether only this machine can connect to that address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        return False


def _exposure(content: Mapping[str, Any]) -> Iterator[Finding]:
    """A warning where whoever reaches this machine may do everything."""
    options = content.get("http_options")
    host = options.get("host") if isinstance(options, dict) else None
    if host is not None and not is_loopback(host) and not has_keys(content):
        message = f"{host} can be reached from outside, and without keys (api_keys_file) everybody may do everything"
        yield Finding(("http_options", "host"), message, is_fault=False)


def _live_faults(deployment: Mapping[str, Any], place: Place) -> Iterator[Finding]:
    """Settings of a running deployment that it does not have: Ray would take them, and the update would fail."""
    name, live = deployment.get("name"), deployment.get("user_config")
    if live is None or name not in GRAPH:
        return
    if name in LIVE:
        yield from schema_faults(LIVE[name], live, place)
    else:
        yield Finding(place, f"{name} has no settings that change while it runs")


def _deployments(content: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for _, application in _mappings(content.get("applications")):
        for _, deployment in _mappings(application.get("deployments")):
            yield deployment


def _mappings(value: object) -> list[tuple[int, dict[str, Any]]]:
    """The mappings in what should be a list of them, with their places in it."""
    return [(i, item) for i, item in enumerate(value) if isinstance(item, dict)] if isinstance(value, list) else []


def _demand(deployment: Mapping[str, Any], option: str) -> float:
    """Of one resource, for the replicas that always run."""
    options, scaling = deployment.get("ray_actor_options"), deployment.get("autoscaling_config")
    each = options.get(option) if isinstance(options, dict) else None
    replicas = deployment.get("num_replicas", 1)
    if isinstance(scaling, dict):
        replicas = scaling.get("min_replicas", 1)
    return each * replicas if is_number(each) and is_number(replicas) else 0.0
