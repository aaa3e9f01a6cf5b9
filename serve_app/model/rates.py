"""How text, speech tokens, mel frames and samples relate in time, for every CosyVoice2 checkpoint.

These are facts of the format (upstream `cosyvoice2.yaml`: token_frame_rate, token_mel_ratio, sample_rate), not
settings.
"""

TOKEN_RATE_HZ = 25
"""Speech tokens a second."""

FRAMES_PER_TOKEN = 2
"""Mel frames for one speech token."""

FRAME_RATE_HZ = TOKEN_RATE_HZ * FRAMES_PER_TOKEN
"""Mel frames a second."""

SAMPLE_RATE_HZ = 24_000
"""Audio samples a second."""

SAMPLES_PER_FRAME = SAMPLE_RATE_HZ // FRAME_RATE_HZ
"""Audio samples for one mel frame."""

SAMPLES_PER_TOKEN = SAMPLES_PER_FRAME * FRAMES_PER_TOKEN
"""Audio samples for one speech token."""
