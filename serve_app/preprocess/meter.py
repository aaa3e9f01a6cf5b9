"""What a preprocessing replica tells of its work: metrics, and one line in the log for each request."""

from collections.abc import Awaitable, Callable
from time import monotonic

from serve_app import metrics
from serve_app.messages import PreparedSpeech
from serve_app.metrics import Recorder
from serve_app.outcome import outcome
from serve_app.stage_log import log_stage


class Meter:
    """One event loop owns it."""

    def __init__(self, recorder: Recorder, lookups: Callable[[], tuple[int, int]]) -> None:
        """lookups: how often a voice's prompt was at hand, and how often not, so far."""
        self._recorder = recorder
        self._lookups = lookups
        self._hits, self._misses = lookups()
        self.num_preparing = 0

    async def prepared(self, speech_id: str, preparing: Awaitable[PreparedSpeech]) -> PreparedSpeech:
        """What `preparing` gives."""
        started_s = monotonic()
        self.num_preparing += 1
        try:
            prepared = await preparing
        except BaseException as error:
            end, reason = outcome(error, heard=False), type(error).__name__
            log_stage("preprocess", speech_id, end, reason=reason, work_s=monotonic() - started_s)
            raise
        finally:
            self.num_preparing -= 1
            self._count_voices()
        work_s = monotonic() - started_s
        self._recorder.observe(metrics.STAGES, work_s, stage="prepare_work")
        log_stage(
            "preprocess",
            speech_id,
            "prepared",
            work_s=work_s,
            utterances=len(prepared.utterances),
            text_tokens=sum(len(utterance.text_ids) for utterance in prepared.utterances),
        )
        return prepared

    def _count_voices(self) -> None:
        """The cache counts for itself, in many threads: what it has counted since the last time."""
        hits, misses = self._lookups()
        self._recorder.add(metrics.VOICE_CACHE, hits - self._hits, result="hit")
        self._recorder.add(metrics.VOICE_CACHE, misses - self._misses, result="miss")
        self._hits, self._misses = hits, misses
