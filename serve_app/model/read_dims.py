"""The sizes that a checkpoint directory states: cosyvoice2.yaml and CosyVoice-BlankEN/config.json."""

import json
from pathlib import Path

from serve_app.model.dims import (
    CheckpointDims,
    EncoderDims,
    EstimatorDims,
    FlowDims,
    LanguageModelDims,
    SamplingDims,
    VocoderDims,
)
from serve_app.model.faults import CheckpointFault
from serve_app.model.file_names import CONFIG_FILE, YAML_FILE
from serve_app.model.plain_yaml import PlainYaml
from serve_app.model.rates import FRAMES_PER_TOKEN, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME


def read_dims(directory: Path) -> CheckpointDims:
    """Reads both files as data; no tensor is opened.

    Raises CheckpointFault for a file or value that is missing, wrong, or describes a network that is not CosyVoice2's.
    """
    recipe = PlainYaml.read(directory / YAML_FILE)
    try:
        dims = CheckpointDims(
            language_model=_language_model(recipe, directory / CONFIG_FILE),
            flow=_flow(recipe),
            vocoder=_vocoder(recipe),
            sampling=SamplingDims(
                top_p=recipe.number("llm.sampling.top_p", 0.8),
                top_k=recipe.integer("llm.sampling.top_k", 25),
                win_size=recipe.integer("llm.sampling.win_size", 10),
                tau_r=recipe.number("llm.sampling.tau_r", 0.1),
            ),
            sample_rate_hz=recipe.integer("sample_rate"),
        )
    except CheckpointFault:
        raise
    except ValueError as error:
        raise CheckpointFault(f"{YAML_FILE} or {CONFIG_FILE}: {error}") from error
    _check_format(recipe, dims)
    return dims


def _language_model(recipe: PlainYaml, config_path: Path) -> LanguageModelDims:
    config = _HuggingFaceConfig(config_path)
    heads = config.integer("num_attention_heads")
    hidden = config.integer("hidden_size")
    if recipe.integer("llm.llm_input_size", hidden) != hidden:
        raise CheckpointFault(f"{YAML_FILE}: llm.llm_input_size is not the hidden_size {hidden} of {CONFIG_FILE}")
    text_block, speech_block = recipe.integers("llm.mix_ratio", (5, 15))
    return LanguageModelDims(
        hidden=hidden,
        layers=config.integer("num_hidden_layers"),
        query_heads=heads,
        kv_heads=config.integer("num_key_value_heads"),
        head_dim=config.integer("head_dim", hidden // heads),
        ffn=config.integer("intermediate_size"),
        rms_eps=config.number("rms_norm_eps"),
        rope_theta=config.rope_theta(),
        text_vocab=config.integer("vocab_size"),
        speech_vocab=recipe.integer("llm.speech_token_size"),
        text_block=text_block,
        speech_block=speech_block,
    )


def _flow(recipe: PlainYaml) -> FlowDims:
    channels = recipe.integers("flow.decoder.estimator.channels")
    if len(channels) != 1:
        raise CheckpointFault(f"{YAML_FILE}: an estimator of {len(channels)} resolutions; CosyVoice2's has one")
    output_size = recipe.integer("flow.encoder.output_size")
    return FlowDims(
        vocab=recipe.integer("flow.vocab_size"),
        input_size=recipe.integer("flow.input_size"),
        mel_bins=recipe.integer("flow.output_size"),
        speaker_dim=recipe.integer("flow.spk_embed_dim"),
        lookahead=recipe.integer("flow.pre_lookahead_len", 3),
        chunk_tokens=recipe.integer("flow.encoder.static_chunk_size"),
        token_mel_ratio=recipe.integer("flow.token_mel_ratio", FRAMES_PER_TOKEN),
        cfg_rate=recipe.number("flow.decoder.cfm_params.content.inference_cfg_rate"),
        num_steps=recipe.integer("flow.decoder.cfm_params.content.n_timesteps", 10),
        encoder=EncoderDims(
            input_size=recipe.integer("flow.encoder.input_size", output_size),
            output_size=output_size,
            attention_heads=recipe.integer("flow.encoder.attention_heads"),
            linear_units=recipe.integer("flow.encoder.linear_units"),
            num_blocks=recipe.integer("flow.encoder.num_blocks"),
        ),
        estimator=EstimatorDims(
            in_channels=recipe.integer("flow.decoder.estimator.in_channels"),
            out_channels=recipe.integer("flow.decoder.estimator.out_channels"),
            channels=channels[0],
            attention_head_dim=recipe.integer("flow.decoder.estimator.attention_head_dim"),
            n_blocks=recipe.integer("flow.decoder.estimator.n_blocks"),
            num_mid_blocks=recipe.integer("flow.decoder.estimator.num_mid_blocks"),
            num_heads=recipe.integer("flow.decoder.estimator.num_heads"),
        ),
    )


def _vocoder(recipe: PlainYaml) -> VocoderDims:
    return VocoderDims(
        sample_rate_hz=recipe.integer("hift.sampling_rate"),
        in_channels=recipe.integer("hift.in_channels"),
        base_channels=recipe.integer("hift.base_channels"),
        nb_harmonics=recipe.integer("hift.nb_harmonics"),
        nsf_alpha=recipe.number("hift.nsf_alpha"),
        nsf_sigma=recipe.number("hift.nsf_sigma"),
        nsf_voiced_threshold_hz=recipe.number("hift.nsf_voiced_threshold"),
        upsample_rates=recipe.integers("hift.upsample_rates"),
        upsample_kernel_sizes=recipe.integers("hift.upsample_kernel_sizes"),
        istft_n_fft=recipe.integer("hift.istft_params.n_fft"),
        istft_hop_len=recipe.integer("hift.istft_params.hop_len"),
        resblock_kernel_sizes=recipe.integers("hift.resblock_kernel_sizes"),
        resblock_dilation_sizes=recipe.integer_lists("hift.resblock_dilation_sizes"),
        source_resblock_kernel_sizes=recipe.integers("hift.source_resblock_kernel_sizes"),
        source_resblock_dilation_sizes=recipe.integer_lists("hift.source_resblock_dilation_sizes"),
        lrelu_slope=recipe.number("hift.lrelu_slope"),
        audio_limit=recipe.number("hift.audio_limit"),
        f0_channels=recipe.integer("hift.f0_predictor.cond_channels"),
    )


def _check_format(recipe: PlainYaml, dims: CheckpointDims) -> None:
    """What this code, like upstream's, takes for granted; a file that says otherwise describes another model."""
    flow, vocoder = dims.flow, dims.vocoder
    fixed: list[tuple[str, object, object]] = [
        ("sample_rate", dims.sample_rate_hz, SAMPLE_RATE_HZ),
        ("flow.token_mel_ratio", flow.token_mel_ratio, FRAMES_PER_TOKEN),
        ("samples of hift for one frame", vocoder.samples_per_frame, SAMPLES_PER_FRAME),
        ("hift.sampling_rate", vocoder.sample_rate_hz, SAMPLE_RATE_HZ),
        ("hift.in_channels", vocoder.in_channels, flow.mel_bins),
        ("flow.vocab_size", flow.vocab, dims.language_model.speech_vocab),
        ("flow.decoder.estimator.out_channels", flow.estimator.out_channels, flow.mel_bins),
        ("flow.decoder.estimator.act_fn", recipe.text("flow.decoder.estimator.act_fn", "gelu"), "gelu"),
        (
            "flow.decoder.estimator.static_chunk_size",
            recipe.integer("flow.decoder.estimator.static_chunk_size", flow.chunk_frames),
            flow.chunk_frames,
        ),
        (
            "flow.decoder.cfm_params.content.t_scheduler",
            recipe.text("flow.decoder.cfm_params.content.t_scheduler", "cosine"),
            "cosine",
        ),
    ]
    wrong = [f"{name} is {found}, not {wanted}" for name, found, wanted in fixed if found != wanted]
    if wrong:
        raise CheckpointFault(f"{YAML_FILE}: {'; '.join(wrong)}")


class _HuggingFaceConfig:
    """The values of a transformers config.json for Qwen2."""

    def __init__(self, path: Path) -> None:
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointFault(f"{CONFIG_FILE} cannot be read: {error}") from error
        if not isinstance(values, dict):
            raise CheckpointFault(f"{CONFIG_FILE} is not a mapping")
        self._values = values
        if values.get("hidden_act", "silu") != "silu" or values.get("use_sliding_window", False):
            raise CheckpointFault(f"{CONFIG_FILE} describes a Qwen2 variant that is not CosyVoice2's")

    def integer(self, name: str, default: int | None = None) -> int:
        value = self._values.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise CheckpointFault(f"{CONFIG_FILE}: {name} is not a positive whole number")
        return value

    def number(self, name: str) -> float:
        return self._number(name, self._values.get(name))

    def rope_theta(self) -> float:
        """In `rope_theta` up to transformers 4, in `rope_parameters` since."""
        rope = self._values.get("rope_parameters") or {}
        if not isinstance(rope, dict) or rope.get("rope_type", "default") != "default":
            raise CheckpointFault(f"{CONFIG_FILE}: rotary positions of another kind than the default")
        if self._values.get("rope_scaling"):
            raise CheckpointFault(f"{CONFIG_FILE}: scaled rotary positions are not supported")
        return self._number("rope_theta", rope.get("rope_theta", self._values.get("rope_theta")))

    def _number(self, name: str, value: object) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise CheckpointFault(f"{CONFIG_FILE}: {name} is not a number")
        return float(value)
