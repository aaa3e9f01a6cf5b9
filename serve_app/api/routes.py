"""The ASGI app: routes, and what surrounds all of them."""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route, WebSocketRoute

from serve_app.api.access import Access, load_keys
from serve_app.api.boundary import Boundary, RequestIds
from serve_app.api.catalog import Catalog
from serve_app.api.compat import MODES, CompatEndpoint, instruct_is_gone
from serve_app.api.dashscope_socket import DashscopeSocket
from serve_app.api.error_table import error_response
from serve_app.api.live_socket import LiveSocket
from serve_app.api.observation import Observation
from serve_app.api.openapi import Description
from serve_app.api.page import page_routes
from serve_app.api.reading import ReadingEndpoint
from serve_app.api.service import SpeechService
from serve_app.api.speech import SpeechEndpoint
from serve_app.api.status import StatusEndpoint
from serve_app.api.voices import ClipPreviewing, VoiceDeletion, VoiceRegistration
from serve_app.config import ApiConfig
from serve_app.metrics import SILENT, Recorder


def create_api(service: SpeechService, config: ApiConfig, recorder: Recorder = SILENT) -> Starlette:
    """The whole HTTP interface over `service`. Pure ASGI throughout, and no Ray: tests give it a fake service."""
    catalog = Catalog(service, config)
    description = Description(config)
    middleware = [
        Middleware(RequestIds),
        Middleware(Boundary),
        Middleware(Observation, recorder),
        Middleware(Access, load_keys(config), config),
    ]
    if config.cors_allow_origins:
        middleware.insert(1, cross_origin(config))
    app = Starlette(
        routes=[
            Route("/v1/audio/speech", SpeechEndpoint(service, config), methods=["POST"]),
            Route("/v1/audio/speech/reading", ReadingEndpoint(service, config), methods=["POST"]),
            WebSocketRoute("/v1/audio/speech/stream", LiveSocket(service, config)),
            *[
                Route(path, CompatEndpoint(mode, service, config), methods=["GET", "POST"])
                for path, mode in MODES.items()
            ],
            Route("/inference_instruct", instruct_is_gone, methods=["GET", "POST"]),
            WebSocketRoute("/api-ws/v1/inference", DashscopeSocket(service, config)),
            Route("/v1/audio/voices", catalog.voices, methods=["GET"]),
            Route("/v1/audio/voices", VoiceRegistration(service, config), methods=["POST"]),
            Route("/v1/audio/voices/preview", ClipPreviewing(service, config), methods=["POST"]),
            Route("/v1/audio/voices/{voice}", catalog.voice, methods=["GET"]),
            Route("/v1/audio/voices/{voice}", VoiceDeletion(service).delete, methods=["DELETE"]),
            Route("/v1/audio/models", catalog.audio_models),
            Route("/v1/models", catalog.models),
            Route("/v1/models/{model:path}", catalog.model),
            Route("/v1/status", StatusEndpoint(service).status),
            Route("/openapi.json", description.openapi),
            Route("/docs", description.docs),
            Route("/health", catalog.health),
            Route("/ready", catalog.ready),
            *page_routes(),
        ],
        middleware=middleware,
        exception_handlers={HTTPException: refuse},
    )
    # a redirect would be an answer that no client asked for
    app.router.redirect_slashes = False
    return app


def cross_origin(config: ApiConfig) -> Middleware:
    """CORS for the configured origins; outside `Boundary`, so that a foreign page can read errors too."""
    return Middleware(
        CORSMiddleware,
        allow_origins=config.cors_allow_origins,
        allow_methods=("GET", "POST", "DELETE"),
        allow_headers=("*",),
        expose_headers=("x-request-id", "x-sample-rate"),
    )


async def refuse(request: Request, error: Exception) -> Response:
    """The framework's own refusals (404, 405), in the body shape of all others."""
    response = error_response(error)
    if response.status_code == 405:
        # the framework names the methods of the first route only, where a path has several
        routes = [route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE]
        response.headers["allow"] = ", ".join(sorted({method for route in routes for method in route.methods or ()}))
    return response
