"""Voices, utterances and settings for measuring: what they cost does not depend on how they sound."""

import numpy as np

from serve_app.config import SynthesisConfig
from serve_app.messages import PreparedUtterance, VoicePrompt

TOKENS_PER_TEXT_TOKEN = 5


def made_up_voice(seed: int, num_tokens: int) -> VoicePrompt:
    """A voice of random tokens: what a voice costs does not depend on how it sounds."""
    random = np.random.default_rng(seed)
    return VoicePrompt(
        key=f"bench-{seed}",
        transcript_ids=np.arange(20, dtype=np.int32),
        speech_ids=random.integers(0, 6561, num_tokens).astype(np.int32),
        mel=random.normal(-5, 1, (2 * num_tokens, 80)).astype(np.float32),
        speaker=random.normal(size=192).astype(np.float32),
    )


def made_up_utterance(voice: VoicePrompt, seed: int, seconds: float) -> PreparedUtterance:
    """An utterance that lasts exactly so many seconds under `bench_config`."""
    num_text_tokens = max(1, round(seconds * 25 / TOKENS_PER_TEXT_TOKEN))
    text = np.random.default_rng(seed).integers(0, 256, num_text_tokens).astype(np.int32)
    return PreparedUtterance(text, voice.transcript_ids, voice.speech_ids, 0, num_text_tokens)


def bench_config(threads: int, streams: int, device: str, render_batch: int = 1) -> SynthesisConfig:
    """Exactly TOKENS_PER_TEXT_TOKEN speech tokens for each text token."""
    ratio = TOKENS_PER_TEXT_TOKEN
    return SynthesisConfig.model_validate(
        {"threads": threads, "max_streams": streams, "device": device, "render_batch": render_batch}
        | {"min_token_text_ratio": ratio, "max_token_text_ratio": ratio}
    )
