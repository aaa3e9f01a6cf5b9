"""Clips to prompts through the toy networks, and the pooling that changed under them."""

import threading
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from serve_app.errors import CheckpointError
from serve_app.messages import Float32Array
from serve_app.preprocess.reference_audio import Clip
from serve_app.preprocess.toy_frontend import write_frontend
from serve_app.preprocess.voice_prompt import VoicePromptBuilder, with_old_pooling
from tests.preprocess.sounds import speech_like

NO_IDS = np.zeros(0, np.int32)


@pytest.fixture(scope="module")
def builder(frontend: Path) -> VoicePromptBuilder:
    return VoicePromptBuilder(frontend, threads=1)


@pytest.mark.parametrize("rate_hz", [16_000, 24_000, 44_100])
@pytest.mark.parametrize("seconds", [0.5, 1.003, 2.5])
def test_shapes_and_rates(builder: VoicePromptBuilder, rate_hz: int, seconds: float) -> None:
    ids = np.asarray([5, 6, 7], np.int32)
    prompt = builder.build(Clip(speech_like(seconds, rate_hz), rate_hz), ids, "k")
    num_tokens = len(prompt.speech_ids)
    assert num_tokens == pytest.approx(25 * seconds, abs=1)
    assert prompt.mel.shape == (2 * num_tokens, 80)
    assert prompt.speaker.shape == (192,)
    assert [str(a.dtype) for a in (prompt.speech_ids, prompt.mel, prompt.speaker)] == ["int32", "float32", "float32"]
    assert prompt.speech_ids.min() >= 0
    assert prompt.speech_ids.max() < 6561
    assert prompt.transcript_ids is ids
    assert prompt.key == "k"


def test_a_thirty_second_clip(builder: VoicePromptBuilder) -> None:
    noise = np.random.default_rng(0).standard_normal(16_000 * 30).astype(np.float32) * 0.1
    assert len(builder.build(Clip(noise, 16_000), NO_IDS, "k").speech_ids) == 750


def test_different_clips_give_different_voices(builder: VoicePromptBuilder) -> None:
    one, same, other = (builder.build(Clip(speech_like(1.5, seed=s), 24_000), NO_IDS, "k") for s in (1, 1, 2))
    assert np.array_equal(one.speech_ids, same.speech_ids)
    assert np.array_equal(one.speaker, same.speaker)
    assert np.mean(one.speech_ids == other.speech_ids) < 0.5
    assert np.abs(one.speaker - other.speaker).max() > 0.01
    assert len(set(one.speech_ids.tolist())) > 10


def test_concurrent_builds_equal_sequential_ones(builder: VoicePromptBuilder) -> None:
    clips = [Clip(speech_like(1.0, seed=s), 24_000) for s in range(6)]
    expected = [builder.build(c, NO_IDS, "k") for c in clips]
    results: dict[int, Float32Array] = {}

    def work(index: int) -> None:
        results[index] = builder.build(clips[index], NO_IDS, "k").speaker

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, prompt in enumerate(expected):
        assert np.array_equal(results[index], prompt.speaker)


def pooling_model(count_include_pad: int, kernel: int = 100) -> "onnx.ModelProto":
    """[1, 2, T] -> [1, 2, ceil(T / 100)], the speaker encoder's segment pooling alone."""
    node = helper.make_node(
        "AveragePool",
        ["x"],
        ["y"],
        kernel_shape=[kernel],
        strides=[kernel],
        ceil_mode=1,
        count_include_pad=count_include_pad,
    )
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, None]) for name in "xy"]
    model = helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:]))
    model.opset_import[0].version = 14
    model.ir_version = 8
    return model


def run(model: "onnx.ModelProto", x: Float32Array) -> Float32Array:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize("num_frames", [1, 30, 99, 100, 101, 200, 230])
def test_the_last_segment_is_divided_by_a_hundred(num_frames: int) -> None:
    """What onnxruntime 1.18.1, upstream's pin, answers for this very graph (run once by hand), on any version."""
    x = np.random.default_rng(num_frames).standard_normal((1, 2, num_frames)).astype(np.float32)
    num_segments = -(-num_frames // 100)
    padded = np.zeros((1, 2, 100 * num_segments), np.float32)
    padded[:, :, :num_frames] = x
    expected = padded.reshape(1, 2, num_segments, 100).mean(axis=3)
    assert np.allclose(run(with_old_pooling(pooling_model(1)), x), expected, atol=1e-6)


def test_pooling_that_never_counted_padding_is_left_alone() -> None:
    x = np.ones((1, 2, 130), np.float32)
    before = pooling_model(0)
    text = before.SerializeToString()
    assert with_old_pooling(before).SerializeToString() == text
    assert np.allclose(run(before, x), 1.0)


def test_the_speaker_vector_follows_the_old_pooling(frontend: Path, builder: VoicePromptBuilder) -> None:
    """150 pooled frames: the second segment is half empty, and the toy network's answer shows how it was divided."""
    from serve_app.preprocess.features import kaldi_fbank

    clip = speech_like(3.0, 16_000)
    fbank = kaldi_fbank(clip)
    model = onnx.load(str(frontend / "campplus.onnx"))
    weights = {w.name: onnx.numpy_helper.to_array(w) for w in model.graph.initializer}
    padded = np.pad(fbank, ((2, 2), (0, 0)))
    windows = np.stack([padded[i : i + 5].T for i in range(0, len(fbank), 2)])
    frames = np.maximum(np.einsum("tck,ock->to", windows, weights["conv_w"]) + weights["conv_b"], 0)
    segments = [frames[:100].sum(axis=0) / 100, frames[100:200].sum(axis=0) / 100]
    stats = np.concatenate([np.mean(segments, axis=0), frames.mean(axis=0), frames.max(axis=0)])
    expected = stats @ weights["out_w"] + weights["out_b"]
    assert 100 < len(frames) < 200
    assert np.allclose(builder.speaker(clip), expected, atol=1e-3)


def test_equal_seeds_write_equal_files(frontend: Path, tmp_path: Path) -> None:
    write_frontend(tmp_path / "again", "toy")
    write_frontend(tmp_path / "other", "toy", seed=1)
    names = [p.relative_to(frontend) for p in sorted(frontend.rglob("*")) if p.is_file()]
    assert len(names) == 5
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (frontend / name).read_bytes(), name
    assert (tmp_path / "other" / "campplus.onnx").read_bytes() != (frontend / "campplus.onnx").read_bytes()


def test_missing_and_broken_networks_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"campplus\.onnx is missing; speech_tokenizer_v2\.onnx is missing"):
        VoicePromptBuilder(tmp_path)
    for name in ("campplus.onnx", "speech_tokenizer_v2.onnx"):
        (tmp_path / name).write_bytes(b"not a network")
    with pytest.raises(CheckpointError, match=r"campplus\.onnx cannot be loaded"):
        VoicePromptBuilder(tmp_path)
