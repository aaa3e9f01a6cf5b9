"""The sizes of CosyVoice2's networks: plain frozen values, read from a checkpoint by `checkpoint.read_dims`.

Field names follow the constructor arguments of upstream's classes where these are clear, and say the unit where not.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LanguageModelDims:
    """Qwen2 with CosyVoice2's heads (upstream `cosyvoice/llm/llm.py`, `Qwen2LM`).

    hidden: width of the residual stream.
    ffn: width inside the gated feed-forward.
    text_vocab: rows of the text embedding.
    speech_vocab: ordinary speech tokens; three control tokens follow them.
    rope_theta: base of the rotary position embedding.
    text_block, speech_block: the interleaving that text streaming was trained on: so many text tokens, then so many
        speech tokens.
    """

    hidden: int
    layers: int
    query_heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    rms_eps: float
    rope_theta: float
    text_vocab: int
    speech_vocab: int = 6561
    text_block: int = 5
    speech_block: int = 15

    def __post_init__(self) -> None:
        if self.query_heads % self.kv_heads:
            raise ValueError(f"{self.query_heads} query heads do not divide among {self.kv_heads} key/value heads")
        if self.head_dim % 2:
            raise ValueError(f"rotary positions need an even head size, not {self.head_dim}")

    @property
    def num_logits(self) -> int:
        """Speech tokens and the three control tokens."""
        return self.speech_vocab + 3

    @property
    def eos_id(self) -> int:
        """The speech token that ends an utterance."""
        return self.speech_vocab

    @property
    def fill_id(self) -> int:
        """The speech token that asks for more text (text streaming only)."""
        return self.speech_vocab + 2

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that are never speech: end, one unused, fill."""
        return (self.speech_vocab, self.speech_vocab + 1, self.speech_vocab + 2)


@dataclass(frozen=True, slots=True)
class EncoderDims:
    """The flow's encoder (upstream `cosyvoice/transformer/upsample_encoder.py`, `UpsampleConformerEncoder`).

    num_blocks: layers at the token rate; num_up_blocks: layers at the frame rate, which upstream writes into its code.
    """

    input_size: int
    output_size: int
    attention_heads: int
    linear_units: int
    num_blocks: int
    num_up_blocks: int = 4

    def __post_init__(self) -> None:
        if self.output_size % self.attention_heads:
            raise ValueError(f"{self.output_size} channels do not divide among {self.attention_heads} heads")

    @property
    def head_dim(self) -> int:
        return self.output_size // self.attention_heads


@dataclass(frozen=True, slots=True)
class EstimatorDims:
    """The flow's velocity estimator (upstream `cosyvoice/flow/decoder.py`, `CausalConditionalDecoder`).

    in_channels: mel_bins four times over: state, mu, speaker, prompt.
    channels: the width of its only resolution.
    n_blocks: transformer blocks after each resnet.
    """

    in_channels: int
    out_channels: int
    channels: int
    attention_head_dim: int
    n_blocks: int
    num_mid_blocks: int
    num_heads: int


@dataclass(frozen=True, slots=True)
class FlowDims:
    """Speech tokens to mel (upstream `cosyvoice/flow/flow.py`, `CausalMaskedDiffWithXvec`).

    vocab: speech tokens it can embed.
    input_size: width of the token embedding.
    mel_bins: upstream's output_size.
    speaker_dim: length of the speaker vector, before its projection to mel_bins.
    lookahead: tokens the encoder looks to the right.
    chunk_tokens: size of the streaming mask's chunks; chunk_frames is the same in mel frames.
    cfg_rate: weight of classifier-free guidance at inference.
    num_steps: Euler steps. Upstream writes 10 into its code; of `n_timesteps` in its yaml it takes no notice.
    """

    vocab: int
    input_size: int
    mel_bins: int
    speaker_dim: int
    lookahead: int
    chunk_tokens: int
    token_mel_ratio: int
    cfg_rate: float
    encoder: EncoderDims
    estimator: EstimatorDims
    num_steps: int = 10

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"a flow of {self.num_steps} Euler steps")
        if self.estimator.in_channels != 4 * self.mel_bins:
            raise ValueError(
                f"the estimator takes {self.estimator.in_channels} channels, not four times {self.mel_bins} mel bins"
            )

    @property
    def chunk_frames(self) -> int:
        return self.chunk_tokens * self.token_mel_ratio


@dataclass(frozen=True, slots=True)
class VocoderDims:
    """Mel to samples (upstream `cosyvoice/hifigan/generator.py`, `HiFTGenerator`, and its F0 predictor).

    in_channels: mel bins.
    nb_harmonics: overtones of the source, the fundamental not counted.
    nsf_alpha, nsf_sigma: amplitude of the sine source, and of the noise on voiced samples.
    nsf_voiced_threshold_hz: F0 above it is voiced.
    istft_n_fft, istft_hop_len: of the inverse transform at the output, in samples.
    f0_channels: upstream's f0_predictor.cond_channels.
    """

    sample_rate_hz: int
    in_channels: int
    base_channels: int
    nb_harmonics: int
    nsf_alpha: float
    nsf_sigma: float
    nsf_voiced_threshold_hz: float
    upsample_rates: tuple[int, ...]
    upsample_kernel_sizes: tuple[int, ...]
    istft_n_fft: int
    istft_hop_len: int
    resblock_kernel_sizes: tuple[int, ...]
    resblock_dilation_sizes: tuple[tuple[int, ...], ...]
    source_resblock_kernel_sizes: tuple[int, ...]
    source_resblock_dilation_sizes: tuple[tuple[int, ...], ...]
    lrelu_slope: float
    audio_limit: float
    f0_channels: int

    @property
    def samples_per_frame(self) -> int:
        """Audio samples for one mel frame."""
        samples = self.istft_hop_len
        for rate in self.upsample_rates:
            samples *= rate
        return samples


@dataclass(frozen=True, slots=True)
class SamplingDims:
    """Repetition-aware sampling (upstream `cosyvoice/utils/common.py`, `ras_sampling`).

    top_p, top_k: limits of the nucleus.
    win_size: how many earlier outputs are searched for a repetition.
    tau_r: a draw that fills this fraction of the window counts as one.
    """

    top_p: float
    top_k: int
    win_size: int
    tau_r: float


@dataclass(frozen=True, slots=True)
class CheckpointDims:
    """Everything a checkpoint directory says of its sizes."""

    language_model: LanguageModelDims
    flow: FlowDims
    vocoder: VocoderDims
    sampling: SamplingDims
    sample_rate_hz: int
