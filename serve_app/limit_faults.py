"""Limits of a Serve YAML that are sound each by itself and impossible together."""

import importlib
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

from serve_app.config import SynthesisConfig
from serve_app.schema_faults import Finding, Place


def limit_faults(deployment: Mapping[str, Any], place: Place, arguments: object) -> Iterator[Finding]:
    """What Ray takes and cannot do, and limits that keep another from ever being reached."""
    options, scaling = deployment.get("ray_actor_options"), deployment.get("autoscaling_config")
    if isinstance(scaling, dict):
        yield from policy_faults(scaling.get("policy"), (*place, "autoscaling_config", "policy"))
    gpus = options.get("num_gpus") if isinstance(options, dict) else None
    if is_number(gpus) and gpus > 1 and gpus != int(gpus):
        yield Finding((*place, "ray_actor_options", "num_gpus"), "more than one GPU must be a whole number")
    if deployment.get("name") == "Synthesis" and is_number(gpus) and 0 < gpus < 1:
        yield from _share_faults(gpus, place, arguments)
    ongoing = deployment.get("max_ongoing_requests")
    if not is_number(ongoing):
        return
    target = scaling.get("target_ongoing_requests") if isinstance(scaling, dict) else None
    if is_number(target) and target > ongoing:
        message = f"is more than max_ongoing_requests ({ongoing}): no replica would ever be added"
        yield Finding((*place, "autoscaling_config", "target_ongoing_requests"), message)
    streams = argument(arguments, "synthesis", "max_streams", SynthesisConfig().max_streams)
    if deployment.get("name") == "Synthesis" and is_number(streams) and ongoing < streams:
        message = f"is less than args.synthesis.max_streams ({streams}): so many are never reached"
        yield Finding((*place, "max_ongoing_requests"), message)


def _share_faults(gpus: float, place: Place, arguments: object) -> Iterator[Finding]:
    """A fraction of a GPU that is not kept, or is more than what was asked for."""
    share = argument(arguments, "synthesis", "gpu_memory_share", None)
    if share is None:
        message = "replicas that share a GPU need args.synthesis.gpu_memory_share, or one may take all its memory"
        yield Finding((*place, "ray_actor_options", "num_gpus"), message, is_fault=False)
    elif is_number(share) and share > gpus:
        message = f"is less than args.synthesis.gpu_memory_share ({share}): the replicas' memory does not add up"
        yield Finding((*place, "ray_actor_options", "num_gpus"), message)


def policy_faults(policy: object, place: Place) -> Iterator[Finding]:
    """Arguments that one of our own autoscaling policies does not take: Ray would learn of it in its controller."""
    path = policy.get("policy_function") if isinstance(policy, dict) else None
    if not isinstance(path, str) or not path.startswith("serve_app."):
        return
    module, _, name = path.replace(":", ".").rpartition(".")
    try:
        made = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return  # said by Ray's own schema
    arguments = policy.get("policy_kwargs") if isinstance(policy, dict) else None
    try:
        made(**(arguments if isinstance(arguments, dict) else {}))
    except (TypeError, ValueError) as error:
        yield Finding((*place, "policy_kwargs"), str(error))


def argument(arguments: object, part: str, name: str, default: object) -> object:
    """One of our settings as it stands in the YAML, which may be wrong elsewhere."""
    section = arguments.get(part) if isinstance(arguments, dict) else None
    return section.get(name, default) if isinstance(section, dict) else default


def is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
