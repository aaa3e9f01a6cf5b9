"""Voices, utterances and settings for measuring: what they cost does not depend on how they sound."""

import math
from dataclasses import dataclass

import numpy as np

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
    """An utterance that lasts exactly so many seconds under `BenchSettings`."""
    num_text_tokens = max(1, round(seconds * 25 / TOKENS_PER_TEXT_TOKEN))
    text = np.random.default_rng(seed).integers(0, 256, num_text_tokens).astype(np.int32)
    return PreparedUtterance(text, voice.transcript_ids, voice.speech_ids, 0, num_text_tokens)


@dataclass(frozen=True, slots=True)
class BenchSettings:
    """`EngineSettings` without pydantic: those of `config.SynthesisConfig`, but for the lengths of utterances: exactly
    TOKENS_PER_TEXT_TOKEN speech tokens for each text token. A test compares the two."""

    device: str = "auto"
    max_streams: int = 16
    render_batch: int = 1
    max_positions: int = 2560
    fixed_shapes: bool | None = None
    memory_mib: int | None = None
    flow_steps: int | None = None
    flow_left_context_chunks: int | None = None
    precision: str = "auto"
    language_precision: str = "fp32"
    min_token_text_ratio: float = TOKENS_PER_TEXT_TOKEN
    max_token_text_ratio: float = TOKENS_PER_TEXT_TOKEN
    gpu_memory_share: float | None = None
    prefill_chunk: int = 256
    flow_cache_mib: int = 2048
    trim_leading_silence: bool = False
    retry_s: float = 3.0
    first_hop_tokens: int | None = 12
    first_lookahead_frames: int | None = None
    hold_first_sound: bool = True
    max_lead_s: float = math.inf
    max_load: float | None = None
