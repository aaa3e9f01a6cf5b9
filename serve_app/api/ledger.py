"""What one ingress replica knows of the requests that pass through it: how many there are, and how they fare.

Every request for speech, over HTTP or a WebSocket, passes `prepared` and then `heard`.
"""

from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from dataclasses import replace
from time import monotonic
from typing import TypeVar

from serve_app import metrics
from serve_app.figures import IngressFigures, Recent, RecentTimes
from serve_app.listener import Listener
from serve_app.messages import AudioChunk, PreparedSpeech
from serve_app.metrics import Recorder
from serve_app.outcome import outcome
from serve_app.stage_log import log_stage
from serve_app.tracing import span

Item = TypeVar("Item")


class Ledger:
    """Counts of this moment and of the last minutes, metrics, log and spans. One event loop owns it."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._now = {"preparing": 0, "unheard": 0, "speaking": 0}
        self._recent = Recent()
        self._ttfa = RecentTimes()
        self._audible_ttfa = RecentTimes()
        for state in self._now:
            self._move(to=state, by=0)

    def figures(self, replica: str) -> IngressFigures:
        """For an operator who asks. replica: the id of the process that this is the ledger of."""
        recent, ttfa, audible = self._recent.counts(), self._ttfa.counts(), self._audible_ttfa.counts()
        return IngressFigures(replica, **self._now, recent=recent, ttfa=ttfa, audible_ttfa=audible)

    async def prepared(self, speech_id: str, preparing: Awaitable[PreparedSpeech]) -> PreparedSpeech:
        """What `preparing` gives, and how long it took."""
        asked_at_s = monotonic()
        self._move(to="preparing")
        try:
            with span("prepare", speech_id):
                prepared = await preparing
        except BaseException as error:
            self._end(speech_id, outcome(error, heard=False), error, prepare_s=monotonic() - asked_at_s)
            raise
        finally:
            self._move(to="preparing", by=-1)
        waited_s = monotonic() - asked_at_s
        self._recorder.observe(metrics.STAGES, waited_s, stage="prepare")
        return replace(prepared, waited_s=waited_s)

    async def heard(self, prepared: PreparedSpeech, chunks: AsyncGenerator[Item, None]) -> AsyncGenerator[Item, None]:
        """The same chunks, and how a listener hears them who plays each as soon as it comes."""
        listener = Listener(asked_at_s=monotonic() - prepared.waited_s)
        end, cause = "spoken", None
        self._move(to="unheard")
        try:
            with span("speak", prepared.request_id):
                async with aclosing(chunks):
                    listener.wait(monotonic())
                    async for chunk in chunks:
                        if isinstance(chunk, AudioChunk):
                            self._hear(listener, chunk, prepared.waited_s)
                        yield chunk
                        listener.wait(monotonic())
        except BaseException as error:
            end, cause = outcome(error, heard=listener.ttfa_s is not None), error
            raise
        finally:
            self._move(to="unheard" if listener.ttfa_s is None else "speaking", by=-1)
            self._sum_up(listener, prepared.fed)
            self._end(
                prepared.request_id,
                end,
                cause,
                prepare_s=prepared.waited_s,
                ttfa_s=listener.ttfa_s,
                audible_ttfa_s=listener.audible_ttfa_s,
                audio_s=listener.audio_s,
                rtf=listener.rtf,
                underruns=listener.num_underruns,
                stall_s=listener.stall_s,
            )

    def _hear(self, listener: Listener, chunk: AudioChunk, waited_s: float) -> None:
        was_silent, was_unheard = listener.audible_ttfa_s is None, listener.ttfa_s is None
        if listener.hear(chunk.samples, monotonic()):
            self._recent.add("underruns")
        if was_unheard and listener.ttfa_s is not None:
            self._move(to="unheard", by=-1)
            self._move(to="speaking")
            self._ttfa.add(listener.ttfa_s)
            self._recorder.observe(metrics.TTFA, listener.ttfa_s)
            self._recorder.observe(metrics.STAGES, listener.ttfa_s - waited_s, stage="speak")
        if was_silent and listener.audible_ttfa_s is not None:
            self._audible_ttfa.add(listener.audible_ttfa_s)
            self._recorder.observe(metrics.AUDIBLE_TTFA, listener.audible_ttfa_s)

    def _sum_up(self, listener: Listener, fed: bool) -> None:
        """Of a stream that was heard. One that is fed keeps pace with whoever writes: its gaps are not the engine's."""
        self._recorder.add(metrics.AUDIO, listener.audio_s)
        if listener.rtf is None or fed:
            return
        self._recorder.observe(metrics.RTF, listener.rtf)
        self._recorder.observe(metrics.UNDERRUNS, listener.num_underruns)

    def _end(self, speech_id: str, end: str, cause: BaseException | None, **figures: float | None) -> None:
        self._recent.add(end)
        self._recorder.add(metrics.SPEECHES, end=end)
        reason = type(cause).__name__ if end in ("invalid", "refused", "failed") else None
        if end == "refused" and reason is not None:
            self._recorder.add(metrics.REFUSALS, reason=reason)
        log_stage("ingress", speech_id, end, reason=reason, **figures)

    def _move(self, *, to: str, by: int = 1) -> None:
        self._now[to] += by
        self._recorder.set(metrics.IN_FLIGHT, self._now[to], state=to)
