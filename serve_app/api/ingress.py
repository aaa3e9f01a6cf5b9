"""The Ray Serve ingress: `SpeechService` over deployment handles, and the deployment that serves the ASGI app.

The only file of `api/` that knows Ray: its errors and its generators end here.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve import metrics
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.api.fullness import Fullness
from serve_app.api.ledger import Ledger
from serve_app.api.routes import create_api
from serve_app.api.second_try import ReplicaGone, answer_again, items_again, items_elsewhere
from serve_app.config import ApiConfig
from serve_app.errors import NotReady, Overloaded, SpeechError
from serve_app.figures import IngressFigures, ServiceFigures
from serve_app.messages import (
    REPLICA_SESSION,
    VOICE_SESSION,
    AudioChunk,
    ClipPreview,
    FedText,
    Int32Array,
    NewVoice,
    NextText,
    PreparedSpeech,
    Reading,
    ReferenceClip,
    RegisteredVoice,
    SpeakingReplica,
    SpeechRequest,
    VoiceInfo,
)
from serve_app.metrics import OF_INGRESS, Instruments
from serve_app.refusals import unless_refused

READY_TIMEOUT_S = 2.0
"""A call to a deployment without replicas waits for one; readiness does not."""
FIGURES_TIMEOUT_S = 2.0

LARGE_ARGUMENT_BYTES = 1024 * 1024
"""Above this a request goes through the object store: a gRPC message between replicas may hold 4 MiB."""


class RayService:
    """`SpeechService` over the handles of the two other deployments.

    preprocess: `prepare(request)`, `prepare_fed(request)`, `next_text(fed)`, `reading(text, normalized)`, `voices()`,
    `register_voice(new)`, `preview_clip(reference)`, `delete_voice(id_or_name)`.
    synthesis: the async generator `speak(prepared, num_turned_away)`, `feed(request_id, ids)`, `end_text(request_id)`,
    `ready()`.
    ingress: the deployment that this is a part of. All three: `figures()`, of one replica.
    """

    def __init__(
        self, preprocess: DeploymentHandle, synthesis: DeploymentHandle, ingress: DeploymentHandle, ledger: Ledger
    ) -> None:
        self.preprocess = preprocess
        self.synthesis = synthesis
        self.ingress = ingress
        self.ledger = ledger
        self.fullness = Fullness()

    async def prepare(self, request: SpeechRequest) -> PreparedSpeech:
        handle = self.preprocess_for(request.reference.audio if request.reference is not None else b"")
        return await self.prepared(request.request_id, lambda: handle.prepare.remote(request))

    async def prepared(self, request_id: str, call: Callable[[], Any]) -> PreparedSpeech:
        """What the call prepares, unless it could not be spoken anyway."""

        async def prepare() -> PreparedSpeech:
            self.fullness.check()
            prepared: PreparedSpeech = await answer_again(lambda: answer(call()))
            return prepared

        return await self.ledger.prepared(request_id, prepare())

    def preprocess_for(self, audio: bytes) -> DeploymentHandle:
        """The handle for a call that carries a clip."""
        return self.preprocess.options(_by_reference=True) if len(audio) > LARGE_ARGUMENT_BYTES else self.preprocess

    async def prepare_fed(self, request: SpeechRequest) -> PreparedSpeech:
        handle = self.preprocess_for(request.reference.audio if request.reference is not None else b"")
        return await self.prepared(request.request_id, lambda: handle.prepare_fed.remote(request))

    async def next_text(self, fed: FedText) -> NextText:
        given: NextText = await answer_again(lambda: answer(self.preprocess.next_text.remote(fed)))
        return given

    def speak(self, prepared: PreparedSpeech) -> AsyncGenerator[AudioChunk, None]:
        return self.ledger.heard(prepared, self.fullness.learn(items_again(lambda: self.items_of(prepared))))

    def speak_fed(self, prepared: PreparedSpeech) -> AsyncGenerator[AudioChunk | SpeakingReplica, None]:
        return self.ledger.heard(prepared, self.fullness.learn(items_again(lambda: self.items_of(prepared))))

    async def feed(self, replica_id: str, request_id: str, text_ids: Int32Array) -> None:
        await answer(self.synthesis_at(replica_id).feed.remote(request_id, text_ids))

    async def end_text(self, replica_id: str, request_id: str) -> None:
        await answer(self.synthesis_at(replica_id).end_text.remote(request_id))

    def synthesis_at(self, replica_id: str) -> DeploymentHandle:
        """The handle for calls to that replica alone."""
        return self.synthesis.options(session_id=REPLICA_SESSION + replica_id)

    def items_of(self, prepared: PreparedSpeech) -> AsyncGenerator[Any, None]:
        """From a synthesis replica of those that know the voice if it has time; if it refuses, the least loaded."""
        return items_elsewhere(
            lambda: self.items_from(VOICE_SESSION + prepared.voice.key, prepared),
            lambda: self.items_from("", prepared),
        )

    async def items_from(self, session_id: str, prepared: PreparedSpeech) -> AsyncGenerator[Any, None]:
        """From the synthesis replica that `VoiceRouter` picks for that session."""
        handle = self.synthesis.options(stream=True, session_id=session_id)
        chunks = handle.speak.remote(prepared, self.fullness.take_turned_away())
        ended = False
        try:
            async for chunk in chunks:
                ended = isinstance(chunk, SpeechError)
                yield unless_refused(chunk)
            ended = True
        except (RayError, RayServeException) as error:
            ended = True
            raise translated(error) from None
        finally:
            if not ended:  # the consumer left: the replica must hear of it
                chunks.cancel()

    async def reading(self, text: str, normalized: bool) -> Reading:
        reading: Reading = await answer_again(lambda: answer(self.preprocess.reading.remote(text, normalized)))
        return reading

    async def voices(self, owner: str = "") -> tuple[VoiceInfo, ...]:
        return tuple(await answer_again(lambda: answer(self.preprocess.voices.remote(owner))))

    async def register_voice(self, new: NewVoice) -> RegisteredVoice:
        registered: RegisteredVoice = await answer(self.preprocess_for(new.audio).register_voice.remote(new))
        return registered

    async def preview_clip(self, reference: ReferenceClip) -> ClipPreview:
        handle = self.preprocess_for(reference.audio)
        preview: ClipPreview = await answer_again(lambda: answer(handle.preview_clip.remote(reference)))
        return preview

    async def delete_voice(self, id_or_name: str, owner: str = "") -> None:
        await answer(self.preprocess.delete_voice.remote(id_or_name, owner))

    async def ready(self) -> bool:
        try:
            return bool(await asyncio.wait_for(answer(self.synthesis.ready.remote()), READY_TIMEOUT_S))
        except (asyncio.TimeoutError, NotReady, Overloaded):
            return False

    async def figures(self) -> ServiceFigures:
        stages = (self.ingress, self.preprocess, self.synthesis)
        return ServiceFigures(*await asyncio.gather(*map(figures_of_all, stages)))


async def figures_of_all(handle: DeploymentHandle) -> tuple[Any, ...] | None:
    """What every replica of a deployment tells of itself; None if they do not answer in time."""
    try:
        answers = await handle.broadcast("figures").results_async(timeout_s=FIGURES_TIMEOUT_S, return_exceptions=True)
    except (TimeoutError, RayServeException):  # the latter: there is none
        return None
    return tuple(figures for figures in answers if not isinstance(figures, BaseException))


async def answer(response: Any) -> Any:
    """The value of a `DeploymentResponse`, cancelled with whoever awaits it. Errors: `SpeechError`."""
    try:
        return unless_refused(await response)
    except asyncio.CancelledError:
        response.cancel()
        raise
    except (RayError, RayServeException) as error:
        raise translated(error) from None


def translated(error: BaseException) -> Exception:
    """What one of Ray's exceptions means here.

    Ours come wrapped, with the replica's traceback as their text: the original is inside. A queue over its limit is
    `Overloaded`; a replica or node that died is `NotReady`, which after the first byte breaks the stream.
    """
    while isinstance(error, RayTaskError) and isinstance(error.cause, BaseException):
        error = error.cause
    if isinstance(error, SpeechError):
        return error
    if isinstance(error, BackPressureError):
        return Overloaded("The queue is full; try again in a moment.")
    if isinstance(error, RayError | RayServeException):
        return ReplicaGone("The replica that served this request went away; try again.")
    return error if isinstance(error, Exception) else RuntimeError("A replica ended.")


class WithoutRequestId:
    """Ray's own server puts `x-request-id` on every response; a second one would make the value a list."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_without(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                message = {**message, "headers": list(message.get("headers", []))}
                del MutableHeaders(scope=message)["x-request-id"]
            await send(message)

        await self.app(scope, receive, send_without)


class Replaceable:
    """Passes every request to the ingress's newest app. Requests of an older one go on in it."""

    def __init__(self, app: ASGIApp, ingress: "Ingress") -> None:
        self.app = app
        self.ingress = ingress

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self.ingress.newest_app or self.app)(scope, receive, send)


@serve.ingress()
class Ingress:
    """Holds the handles; Ray asks it for the ASGI app once its constructor has run."""

    newest_app: ASGIApp | None = None

    def __init__(self, config: ApiConfig, preprocess: DeploymentHandle, synthesis: DeploymentHandle) -> None:
        self.config = config
        self.instruments = Instruments(metrics, OF_INGRESS)
        self.ledger = Ledger(self.instruments)
        here = serve.get_replica_context()
        itself = serve.get_deployment_handle(here.deployment, here.app_name)
        self.service = RayService(preprocess, synthesis, itself, self.ledger)

    async def figures(self) -> IngressFigures:
        """What this replica is doing."""
        return self.ledger.figures(serve.get_replica_context().replica_id.unique_id)

    def __serve_build_asgi_app__(self) -> Starlette:
        app = create_api(self.service, self.config, self.instruments)
        app.add_middleware(Replaceable, ingress=self)
        app.add_middleware(WithoutRequestId)
        return app

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Ray calls it when the YAML's `user_config` has changed. Raises ValidationError.

        Streams that are open go on as they began; those of a key are counted anew.
        """
        self.newest_app = create_api(self.service, self.config.with_live(user_config), self.instruments)
