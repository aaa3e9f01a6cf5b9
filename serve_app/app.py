"""The deployment graph: an ingress over CPU replicas that prepare and replicas that speak."""

from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import RequestRouterConfig

from serve_app.api.ingress import Ingress
from serve_app.config import AppConfig
from serve_app.model.speakers import convert_speakers
from serve_app.preprocess.deployment import Preprocess
from serve_app.synthesis.deployment import Synthesis
from serve_app.synthesis.router import VoiceRouter

# Defaults that a YAML's `deployments:` overrides by name. A request is ongoing for as long as it plays: Ray's default
# of 5 would be five listeners. Health is checked every second, so that a broken replica is replaced in seconds.
_HEALTH: dict[str, Any] = {"health_check_period_s": 1, "health_check_timeout_s": 10}
_ingress = serve.deployment(name="Ingress", max_ongoing_requests=1000, **_HEALTH)(Ingress)
_preprocess = serve.deployment(name="Preprocess", max_ongoing_requests=8, **_HEALTH)(Preprocess)
_routing = RequestRouterConfig(request_router_class=VoiceRouter)
_synthesis = serve.deployment(name="Synthesis", max_ongoing_requests=64, request_router_config=_routing, **_HEALTH)(
    Synthesis
)


def build(config: AppConfig) -> Application:
    """The application that a Serve YAML names as `import_path: serve_app.app:build`, with `args:` as its config.

    Raises ValueError for settings that no service could run with.
    """
    if config.synthesis.engine == "reference" and config.api.text_streaming == "token":
        raise ValueError("engine: reference speaks whole sentences only: it needs api.text_streaming: sentence")
    located = config.located()
    # Before the replicas start: those that prepare look for it, and only those that speak could make it.
    convert_speakers(located.checkpoint)
    return _ingress.bind(located.api, _preprocess.bind(located), _synthesis.bind(located))
