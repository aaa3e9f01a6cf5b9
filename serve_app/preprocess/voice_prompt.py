"""A reference clip to all that the models need to know of a voice, through the checkpoint's two ONNX networks."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from serve_app.errors import CheckpointError, InvalidAudio
from serve_app.messages import Float32Array, Int32Array, VoicePrompt
from serve_app.preprocess.features import PROMPT_RATE_HZ, SPEECH_RATE_HZ, kaldi_fbank, prompt_mel, whisper_mel
from serve_app.preprocess.reference_audio import Clip

SPEAKER_ENCODER = "campplus.onnx"
SPEECH_TOKENIZER = "speech_tokenizer_v2.onnx"
MEL_FRAMES_PER_TOKEN = 2


class VoicePromptBuilder:
    """Owns the two onnxruntime sessions. `build` may be called from several threads at once.

    Clips are not batched (`serve.batch`), since it does not pay: of random networks of about CosyVoice2's size, four
    clips of 5 s in one batch take 0.98 and 1.00 of the core time of four calls (`bench --batch`); the published speech
    tokenizer has a batch of one; and a clip would wait for others. Many clips need replicas, or threads of one.
    """

    def __init__(self, checkpoint: Path, threads: int = 1) -> None:
        """Raises CheckpointError, naming every file that is missing or cannot be loaded."""
        faults: list[str] = []
        for name in (SPEAKER_ENCODER, SPEECH_TOKENIZER):
            if not (checkpoint / name).is_file():
                faults.append(f"{name} is missing")
        if faults:
            raise CheckpointError("The front end is incomplete: " + "; ".join(faults) + ".")
        self._speaker_encoder = _session(checkpoint / SPEAKER_ENCODER, threads, rewrite_pooling=True)
        self._speech_tokenizer = _session(checkpoint / SPEECH_TOKENIZER, threads)

    def build(self, clip: Clip, transcript_ids: Int32Array, key: str) -> VoicePrompt:
        """The prompt of one clip (upstream `frontend_zero_shot`). Of mel frames and tokens the longer one is cut.

        Raises InvalidAudio when the networks find nothing in the clip.
        """
        at_16_khz = clip.resampled(SPEECH_RATE_HZ).samples
        mel = prompt_mel(clip.resampled(PROMPT_RATE_HZ).samples)
        speech_ids = self.speech_ids(at_16_khz)
        num_tokens = min(len(mel) // MEL_FRAMES_PER_TOKEN, len(speech_ids))
        speaker = self.speaker(at_16_khz)
        if num_tokens == 0 or not np.isfinite(speaker).all():
            raise InvalidAudio("The reference clip holds nothing that can be taken for a voice.")
        return VoicePrompt(
            key=key,
            transcript_ids=transcript_ids,
            speech_ids=speech_ids[:num_tokens],
            mel=np.ascontiguousarray(mel[: MEL_FRAMES_PER_TOKEN * num_tokens]),
            speaker=speaker,
        )

    def speech_ids(self, at_16_khz: Float32Array) -> Int32Array:
        """int32 [N], 25 ids a second, of a mono clip [S] at 16 kHz."""
        mel = whisper_mel(at_16_khz)
        names = [node.name for node in self._speech_tokenizer.get_inputs()]
        feeds = {names[0]: mel[None], names[1]: np.asarray([mel.shape[1]], dtype=np.int32)}
        ids = self._speech_tokenizer.run(None, feeds)[0]
        return np.asarray(ids, dtype=np.int32).reshape(-1)

    def speaker(self, at_16_khz: Float32Array) -> Float32Array:
        """float32 [192], not normalised, of a mono clip [S] at 16 kHz."""
        name = self._speaker_encoder.get_inputs()[0].name
        vector = self._speaker_encoder.run(None, {name: kaldi_fbank(at_16_khz)[None]})[0]
        return np.asarray(vector, dtype=np.float32).reshape(-1)


def _session(path: Path, threads: int, rewrite_pooling: bool = False) -> "onnxruntime.InferenceSession":
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A spinning pool burns the cores that the other replicas of the machine need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        source = with_old_pooling(onnx.load(str(path))).SerializeToString() if rewrite_pooling else str(path)
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnx and onnxruntime raise a dozen unrelated classes
        raise CheckpointError(f"{path.name} cannot be loaded: {error}") from error


def with_old_pooling(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """Makes average pooling in `ceil_mode` divide its last, incomplete window by the whole window's size.

    That is what onnxruntime did before 1.26 for the speaker encoder's segment pooling (100 frames, padding counted),
    hence what CosyVoice2's weights have seen; newer ones divide by the frames that are there. The same result is
    written out as plain padding at the end, which every version computes alike. Changes `model` and returns it.
    """
    for node in model.graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type != "AveragePool" or not (attributes.get("ceil_mode") and attributes.get("count_include_pad")):
            continue
        kernel = list(attributes["kernel_shape"])
        strides = list(attributes.get("strides", [1] * len(kernel)))
        pads = list(attributes.get("pads", [0] * 2 * len(kernel)))
        ends = [pad + stride - 1 for pad, stride in zip(pads[len(kernel) :], strides, strict=True)]
        kept = [a for a in node.attribute if a.name not in ("ceil_mode", "pads")]
        del node.attribute[:]
        node.attribute.extend([*kept, onnx.helper.make_attribute("pads", [*pads[: len(kernel)], *ends])])
    return model
