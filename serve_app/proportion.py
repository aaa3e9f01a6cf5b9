"""Scales preprocessing in proportion to synthesis, by one policy for the whole application.

Instead of the deployments' own policies, in a Serve YAML:

    applications:
      - name: speech
        autoscaling_policy:
          policy_function: serve_app.proportion:InProportion
          policy_kwargs: {preprocess_per_synthesis: 0.5}

Each deployment keeps its own `autoscaling_config`, whose bounds, factors and delays Ray applies to what is wanted here.
"""

import math
from collections.abc import Mapping
from typing import Any, Protocol

from serve_app.synthesis import autoscaling


class DeploymentName(Protocol):
    """What is read of Ray's `DeploymentID`."""

    name: str


class Context(autoscaling.Context, Protocol):
    """What is read of `ray.serve.config.AutoscalingContext`; config: the deployment's `AutoscalingConfig`."""

    capacity_adjusted_max_replicas: int
    config: Any

    @property
    def total_num_requests(self) -> float: ...


class InProportion:
    """Synthesis by its spare streams; preprocessing a fixed share of that, so that both are there when a burst is.

    Every other deployment follows Ray's own rule, its `target_ongoing_requests`.
    """

    def __init__(
        self, preprocess_per_synthesis: float = 0.5, spare_share: float = 0.25, down_share: float = 0.6
    ) -> None:
        """preprocess_per_synthesis: replicas for each one that speaks. Raises ValueError unless it is above 0, and
        for what `SpareStreams` refuses."""
        if preprocess_per_synthesis <= 0:
            raise ValueError("preprocess_per_synthesis must be above 0")
        self._ratio = preprocess_per_synthesis
        self._spare_streams = autoscaling.SpareStreams(spare_share, down_share)

    def __call__(self, contexts: Mapping[Any, Context]) -> tuple[dict[Any, int], dict[Any, dict[str, Any]]]:
        """Replicas wanted of every deployment that is autoscaled, and no state."""
        by_name = {deployment.name: ctx for deployment, ctx in contexts.items()}
        wanted = {}
        for deployment, ctx in contexts.items():
            if deployment.name == "Synthesis":
                wanted[deployment] = self._speaking(ctx)
            elif deployment.name == "Preprocess" and "Synthesis" in by_name:
                wanted[deployment] = math.ceil(self._ratio * self._speaking(by_name["Synthesis"]))
            else:
                wanted[deployment] = max(
                    1, math.ceil(ctx.total_num_requests / ctx.config.get_target_ongoing_requests())
                )
        return wanted, {}

    def _speaking(self, ctx: Context) -> int:
        """Synthesis replicas, at most as many as there may be."""
        return min(self._spare_streams(ctx)[0], ctx.capacity_adjusted_max_replicas)
