"""What a stream begins as: how long it may get, its text, its seed."""

from serve_app.messages import PreparedSpeech, PreparedUtterance
from serve_app.model.dims import LanguageModelDims
from serve_app.synthesis.guards import LengthRule
from serve_app.synthesis.interleave import Interleave
from serve_app.synthesis.leading_silence import LeadingSilence
from serve_app.synthesis.sampling import utterance_seed
from serve_app.synthesis.scheduler import Playback, Progress
from serve_app.synthesis.stream import SpeechStream


class Opening:
    """Makes streams, which hold nothing yet."""

    def __init__(self, dims: LanguageModelDims, lengths: LengthRule, *, trim_leading_silence: bool) -> None:
        self._dims = dims
        self._lengths = lengths
        self._trim_leading_silence = trim_leading_silence

    def __call__(self, stream_id: int, speech: PreparedSpeech, index: int, playback: Playback) -> SpeechStream:
        """Utterance number `index` of a request."""
        utterance = speech.utterances[index]
        min_tokens, max_tokens = self._lengths.bounds(len(utterance.text_ids))
        return SpeechStream(
            speech.voice,
            utterance,
            utterance_seed(speech.seed, index),
            speech.speed,
            Progress(stream_id, playback, index),
            min_tokens=min_tokens,
            max_tokens=max_tokens,
            interleave=self._interleave(utterance) if speech.fed else None,
            leading_silence=self._leading_silence(utterance, index),
        )

    def _leading_silence(self, utterance: PreparedUtterance, index: int) -> LeadingSilence | None:
        """Only before the first word of a request: between sentences, and where it was asked for, silence is meant."""
        wanted = self._trim_leading_silence and index == 0 and utterance.pause_before_s == 0
        return LeadingSilence() if wanted else None

    def _interleave(self, utterance: PreparedUtterance) -> Interleave:
        prompt = utterance.prefix_ids.tolist(), utterance.speech_prefix_ids.tolist()
        interleave = Interleave(self._dims.text_block, self._dims.speech_block, *prompt)
        interleave.feed(utterance.text_ids.tolist())
        return interleave
