"""The application's own settings: the `args:` of a Serve YAML, parsed once, frozen and strict.

Ray Serve's knobs (replicas, autoscaling, resources) stay in the YAML's `deployments:` and are not repeated here.
Relative paths are relative to the directory that `serve run` was started in.
"""

import math
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

OPENAI_VOICES = (
    *("alloy", "ash", "ballad", "coral", "echo", "fable", "onyx"),
    *("nova", "sage", "shimmer", "verse", "marin", "cedar"),
)


MIN_REFERENCE_S, MAX_REFERENCE_S = 0.5, 30.0
"""How long a reference clip may be, where nothing else is set; the longer is also the most that can be set."""

TextStreaming = Literal["token", "sentence"]


class Settings(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def given(self) -> dict[str, Any]:
        """The settings that were given, defaults left out."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class LiveApiConfig(Settings):
    """What the `user_config` of the deployment Ingress may change while it serves."""

    default_voice: str = "default"
    voice_aliases: dict[str, str] = Field(default_factory=lambda: dict.fromkeys(OPENAI_VOICES, "default"))
    """Other names for voices: OpenAI's own are sent by clients that never heard of ours."""
    max_streams_per_key: int | None = Field(default=None, ge=1)
    """Requests for speech that one key may have open at once, on one ingress replica."""


class ApiConfig(LiveApiConfig):
    """Limits and access rules of the HTTP and WebSocket edge."""

    model_name: str = "cosyvoice2-0.5b"
    model_aliases: tuple[str, ...] = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts", "cosyvoice-v2")
    max_input_characters: int = Field(default=4096, ge=1)
    max_pending_characters: int = Field(default=20_000, ge=100)
    """Text that a WebSocket client may have sent ahead of its speech."""
    text_streaming: TextStreaming = "token"
    """What a WebSocket's text is spoken in. "token": a sentence is spoken while it is still being written. That needs
    a checkpoint that was trained on text and speech taking turns, as CosyVoice2's was, and the streaming engine.
    "sentence": each sentence is spoken once it is complete, for every other checkpoint and for `engine: reference`."""
    socket_input_s: float = Field(default=23.0, gt=0)
    """How long a DashScope task may wait for its next text, and a sentence that is being spoken for its next word: it
    is then taken to have ended, so that nobody holds a stream by silence."""
    socket_idle_s: float = Field(default=60.0, gt=0)
    """How long a DashScope connection may have no task."""
    max_body_bytes: int = Field(default=256 * 1024, ge=1024)
    max_reference_bytes: int = Field(default=10 * 1024 * 1024, ge=1024)
    body_timeout_s: float = Field(default=60.0, gt=0)
    cors_allow_origins: tuple[str, ...] = ()
    api_keys_file: Path | None = None
    """One key a line; `#` begins a comment. Without keys, here or in the variable, everybody may do everything."""
    api_keys_variable: str | None = None
    """Name of an environment variable that holds keys, separated by commas or spaces."""
    listings_need_key: bool = True
    """Where there are keys, the lists of models and voices need one too; False opens them to every reader, for programs
    that send their key with speech only, as Open WebUI does."""
    voices_per_key: bool = False
    """A registered voice belongs to the key that registered it: no other can list, use or delete it, or learn of it.
    Voices registered without this stay everybody's."""

    def with_live(self, user_config: dict[str, Any]) -> "ApiConfig":
        """These settings with others of `LiveApiConfig`. Raises ValidationError."""
        return self.model_copy(update=LiveApiConfig.model_validate(user_config).given())


class PreprocessConfig(Settings):
    """Text and reference audio, on CPU replicas."""

    voices_dir: Path = Path("configs/voices")
    voice_store: str = Field(default="~/.local/share/cosyvoice-serve/voices", min_length=1)
    """Registered voices: a folder, shared by all nodes if there are several, or a bucket's URL as fsspec has them."""
    min_reference_s: float = Field(default=MIN_REFERENCE_S, gt=0)
    max_reference_s: float = Field(default=MAX_REFERENCE_S, le=MAX_REFERENCE_S)
    max_utterance_tokens: int = Field(default=80, ge=20, le=200)
    voice_cache_entries: int = Field(default=256, ge=1)
    threads: int = Field(default=1, ge=1)


class LiveSynthesisConfig(Settings):
    """What the `user_config` of the deployment Synthesis may change while it speaks."""

    max_lead_s: float = Field(default=math.inf, gt=0)
    """Pause a stream whose listener has this much audio in hand; .inf: it runs ahead while nobody else needs time."""
    max_load: float | None = Field(default=None, gt=0)
    """Refuse a newcomer when steady playback would take more than this share of the engine's time, by the measured cost
    of its steps. None: only `max_streams` refuses."""


class SynthesisConfig(LiveSynthesisConfig):
    """The engine on one synthesis replica."""

    engine: Literal["streaming", "reference"] = "streaming"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    gpu_memory_share: float | None = Field(default=None, gt=0, le=1)
    """Share of the GPU's memory this replica may take: Ray's fractions of a GPU isolate nothing by themselves."""
    threads: int = Field(default=1, ge=1)
    max_streams: int = Field(default=16, ge=1)
    max_positions: int = Field(default=2560, ge=256)
    """Longest sequence of the language model: prompt, text and speech tokens together."""
    prefill_chunk: int = Field(default=256, ge=1)
    """Positions of a prompt that the language model reads at once; while it does, everybody who listens waits. A usual
    prompt goes in whole: one of 172 positions costs the demo 26.5 ms of CPU time, in pieces of 64 it would be 36.5 and
    in pieces of 128 31.1."""
    flow_cache_mib: int = Field(default=2048, ge=0)
    """Budget for the flow prefixes of recently used voices. One of 3.5 s takes 460 MiB at CosyVoice2's size in fp32."""
    min_token_text_ratio: float = Field(default=2, ge=0)
    max_token_text_ratio: float = Field(default=20, gt=0)
    """Bounds of an utterance: speech tokens for each text token (upstream's names and values)."""
    trim_leading_silence: bool = False
    """Leave out the silence before a request's first word, up to a second of it, so that a voice is heard sooner: the
    demo's voices begin with 50 to 190 ms of it, of which 30 ms stay. Off, since samples are then no longer those of the
    whole utterance, from its first one on."""
    retry_s: float = Field(default=3.0, ge=0)
    """A sentence on which the model gets stuck before its listener hears of it is tried once more, from another seed,
    if it was begun no longer ago than this."""
    first_hop_tokens: int | None = Field(default=12, ge=1, le=25)
    """Speech tokens (40 ms each) of the first chunk: a voice's prompt is cut, from its start, so that it ends this many
    tokens before a border of the flow's chunks. Fewer leave less audio in hand, so that the first sound is held longer
    where others speak: with 9, the demo on two cores is heard 13 % sooner alone, and 20 % later as one of four. None:
    the fewest, what the vocoder holds back and 160 ms of sound, 12 for CosyVoice2 and 8 for the demo checkpoint."""
    first_lookahead_frames: int | None = Field(default=None, ge=1)
    """Mel frames (20 ms) that the vocoder holds back at the first sound; None: as many as make it exact (16 for
    CosyVoice2, 8 for the demo checkpoint). Fewer give more sound at once. The demo with 6 deviates by at most -81 dB of
    the peak, with 5 by -42 dB, with 4 by -23 dB; CosyVoice2's own weights were not measured."""
    hold_first_sound: bool = True
    """Hold a first sound until what follows will be there in time, by the measured cost of steps."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the language model and the flow's estimator. auto: bf16 on a GPU, fp32 on a CPU."""
    language_precision: Literal["fp32", "int8"] = "fp32"
    """On a CPU: int8 keeps the language model's linear layers in 8 bits, which pays at CosyVoice2's size and hardly at
    the demo's. Its choices of tokens are then not quite the checkpoint's."""
    fixed_shapes: bool | None = None
    """Batches padded to buckets, the flow's past in pages: what CUDA graphs need. None: on a GPU. On a CPU it is
    slower, and for tests."""
    memory_mib: int | None = Field(default=None, ge=1)
    """What the flow may keep of all open streams together; a request that might outgrow it is refused. None: on a GPU
    what is left of it (or of `gpu_memory_share`), on a CPU no limit."""
    flow_steps: int | None = Field(default=None, ge=1, le=100)
    """Euler steps by which the flow makes a mel. None: as the checkpoint's yaml says, for CosyVoice2 upstream's 10.
    Fewer cost less in proportion, and are not exact."""
    flow_left_context_chunks: int | None = Field(default=None, ge=1)
    """A chunk sees so many seconds before it, which bounds memory and the cost of a chunk, and is not exact: by how
    much it deviates, `python -m serve_app.synthesis.bench --left-context N` prints. None: all, exactly."""
    max_step_s: float = Field(default=5.0, gt=0)
    """A step that takes longer than this, and than a thousand usual ones, hangs: the replica is replaced."""
    render_batch: int = Field(default=1, ge=1)
    """Chunks rendered together: on a CPU two take twice as long as one, so an urgent one would wait for the other."""

    def with_live(self, user_config: dict[str, Any]) -> "SynthesisConfig":
        """These settings with others of `LiveSynthesisConfig`. Raises ValidationError."""
        return self.model_copy(update=LiveSynthesisConfig.model_validate(user_config).given())


class AppConfig(Settings):
    """Everything `serve_app.app:build` takes."""

    checkpoint: Path
    api: ApiConfig = ApiConfig()
    preprocess: PreprocessConfig = PreprocessConfig()
    synthesis: SynthesisConfig = SynthesisConfig()

    def located(self) -> "AppConfig":
        """The same settings with absolute paths, so that replicas started elsewhere find the files."""
        store = self.preprocess.voice_store
        if "://" not in store:
            store = str(Path(store).expanduser().resolve())
        located = {"voices_dir": self.preprocess.voices_dir.resolve(), "voice_store": store}
        preprocess = self.preprocess.model_copy(update=located)
        keys = self.api.api_keys_file
        api = self.api.model_copy(update={"api_keys_file": keys.resolve()}) if keys else self.api
        return self.model_copy(update={"checkpoint": self.checkpoint.resolve(), "api": api, "preprocess": preprocess})
