"""A stream whose model is stuck: one more try, or an error."""

from collections.abc import Callable

from serve_app.errors import GenerationFailed
from serve_app.synthesis.language_stage import LanguageStage
from serve_app.synthesis.stream import SpeechStream


class SecondTry:
    """One more try from another seed, if nobody has heard any of what was no speech and it is not too late."""

    def __init__(
        self, language: LanguageStage, lookahead_tokens: int, retry_s: float, clock: Callable[[], float]
    ) -> None:
        """lookahead_tokens: beyond a rendered chunk, that it depends on. retry_s: since a stream began."""
        self._language = language
        self._lookahead_tokens = lookahead_tokens
        self._retry_s = retry_s
        self._clock = clock

    def consider(self, stream: SpeechStream) -> None:
        """Takes a stuck stream back to where it was speech, or gives it a fault; leaves every other one alone.

        Where it goes on depends on the tokens alone, so that a request repeats itself if it succeeds.
        """
        if stream.stuck_from is None or stream.progress.generated:
            return
        assert stream.flow is not None and stream.prompt_ids is not None and stream.started_s is not None
        num_rendered = stream.flow.num_tokens + self._lookahead_tokens - len(stream.prompt_ids)
        in_time = self._clock() - stream.started_s <= self._retry_s
        unheard = stream.interleave is None and num_rendered <= stream.stuck_from
        if in_time and unheard and not stream.retried:
            self._language.retry(stream)
        else:
            stream.fault = GenerationFailed("the model got stuck on this text and said no more of it")
