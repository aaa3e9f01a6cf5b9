"""The deployment graph: an ingress over CPU replicas that prepare and replicas that speak."""

from ray.serve import Application

from serve_app.api.ingress import Ingress
from serve_app.config import AppConfig
from serve_app.preprocess.deployment import Preprocess
from serve_app.synthesis.deployment import Synthesis


def build(config: AppConfig) -> Application:
    """The application that a Serve YAML names as `import_path: serve_app.app:build`, with `args:` as its config."""
    located = config.located()
    return Ingress.bind(located.api, Preprocess.bind(located), Synthesis.bind(located))
