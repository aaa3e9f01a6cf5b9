"""Writes the front-end files of a toy CosyVoice2 checkpoint: tokenizer, speaker encoder and speech tokenizer.

The two networks have the real inputs, outputs, rates and traps, but few and random weights: their answers depend on
the clip and mean nothing. The tokenizer is a real byte-level BPE, only small.
"""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from serve_app.preprocess.tokenizer import FOLDER, SPECIAL_TOKENS

NUM_BPE_TOKENS = 640
"""256 bytes and 384 merges: every id, special tokens included, stays below 1024."""
_BASE_TOKENS = SPECIAL_TOKENS[:3]
"""What Qwen2's own tokenizer has beside its vocabulary; upstream adds the rest when it loads."""

# What the merges are learned from. Any text does; this one has what speech services are asked to say.
_CORPUS = """
The quick brown fox jumps over the lazy dog. Hello, how are you today? I am very well, thank you, and what about you?
It was the best of times, it was the worst of times. Please call me back when you have the time to talk about this.
The meeting starts at ten in the morning and ends before noon. There is nothing to worry about, everything is fine.
She sells sea shells by the sea shore. Welcome to the service, your order will arrive on Monday the third of March.
Thank you for calling. The weather in the north will be cold and rainy, with some sunshine later in the afternoon.
This is a short sentence that I would like to hear. When the sunlight strikes raindrops in the air, they act as a prism
and form a rainbow. The rainbow is a division of white light into many beautiful colours. Speak in a happy voice.
你好，今天天气怎么样？我们一起去公园走走吧。收到好友从远方寄来的生日礼物，那份意外的惊喜与深深的祝福让我心中充满了甜蜜的快乐。
欢迎使用语音合成服务，请说话。这是一个测试，谢谢大家。他说：“我们明天再见！”中国的首都是北京，上海是一个很大的城市。
"""


def write_frontend(directory: Path, size: Literal["toy", "real"], seed: int = 0) -> None:
    """Writes CosyVoice-BlankEN's tokenizer files, campplus.onnx and speech_tokenizer_v2.onnx into `directory`.

    Equal seeds give equal files. Both sizes hold the same small tokenizer: its ids fit any vocabulary. `real` makes
    the speech tokenizer about as wide and deep as the published one (80 M weights, without its attention), so that
    timings mean something; the file has 320 MB.
    """
    folder = directory / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    _write_tokenizer(folder)
    rng = np.random.default_rng(seed)
    onnx.save(_speaker_encoder(rng, hidden=16 if size == "toy" else 256), str(directory / "campplus.onnx"))
    hidden, blocks = (32, 1) if size == "toy" else (1280, 6)
    onnx.save(_speech_tokenizer(rng, hidden, blocks), str(directory / "speech_tokenizer_v2.onnx"))


def _write_tokenizer(folder: Path) -> None:
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=NUM_BPE_TOKENS,
        min_frequency=1,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    learner.train_from_iterator(_CORPUS.strip().splitlines(), trainer)
    learner.model.save(str(folder))
    added = {
        str(NUM_BPE_TOKENS + index): {
            "content": token,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for index, token in enumerate(_BASE_TOKENS)
    }
    config = {
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "additional_special_tokens": list(_BASE_TOKENS[1:]),
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": _BASE_TOKENS[0],
        "errors": "replace",
        "model_max_length": 32768,
        "pad_token": _BASE_TOKENS[0],
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def _normal(rng: np.random.Generator, name: str, shape: tuple[int, ...], fan_in: int, gain: float = 1.0) -> Any:
    array: NDArray[np.float32] = (rng.standard_normal(shape) * gain / np.sqrt(fan_in)).astype(np.float32)
    return numpy_helper.from_array(array, name)


def _ints(name: str, *values: int) -> Any:
    return numpy_helper.from_array(np.asarray(values, dtype=np.int64), name)


def _model(nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: list[Any]) -> Any:
    graph = helper.make_graph(nodes, "toy", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], producer_name="cosyvoice-serve toy")
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


def _speaker_encoder(rng: np.random.Generator, hidden: int) -> Any:
    """[1, T, 80] -> [1, 192], through the published file's segment pooling: AveragePool 100 / 100, ceil_mode."""
    weights = [
        _normal(rng, "conv_w", (hidden, 80, 5), 80 * 5, 0.5),
        _normal(rng, "conv_b", (hidden,), 1, 0.1),
        _normal(rng, "out_w", (3 * hidden, 192), 3 * hidden, 2.0),
        _normal(rng, "out_b", (192,), 1, 0.1),
    ]
    nodes = [
        helper.make_node("Transpose", ["fbank"], ["x"], perm=[0, 2, 1]),
        helper.make_node("Conv", ["x", "conv_w", "conv_b"], ["conv"], kernel_shape=[5], strides=[2], pads=[2, 2]),
        helper.make_node("Relu", ["conv"], ["frames"]),
        helper.make_node(
            "AveragePool",
            ["frames"],
            ["segments"],
            kernel_shape=[100],
            strides=[100],
            ceil_mode=1,
            count_include_pad=1,
        ),
        helper.make_node("ReduceMean", ["segments"], ["segment_mean"], axes=[2], keepdims=0),
        helper.make_node("ReduceMean", ["frames"], ["mean"], axes=[2], keepdims=0),
        helper.make_node("ReduceMax", ["frames"], ["max"], axes=[2], keepdims=0),
        helper.make_node("Concat", ["segment_mean", "mean", "max"], ["stats"], axis=1),
        helper.make_node("Gemm", ["stats", "out_w", "out_b"], ["speaker"]),
    ]
    inputs = [helper.make_tensor_value_info("fbank", TensorProto.FLOAT, [1, "T", 80])]
    outputs = [helper.make_tensor_value_info("speaker", TensorProto.FLOAT, [1, 192])]
    return _model(nodes, inputs, outputs, weights)


def _speech_tokenizer(rng: np.random.Generator, hidden: int, blocks: int) -> Any:
    """[1, 128, T] and int32 [1] -> int32 [1, T // 4]: two strided convolutions, then finite scalar quantisation.

    Eight numbers of three levels each, 3**8 = 6561 ids, as the published tokenizer quantises.
    """
    weights = [
        _normal(rng, "down1", (hidden, 128, 2), 128 * 2, 2.0),
        _normal(rng, "down2", (hidden, hidden, 2), hidden * 2, 1.4),
        _normal(rng, "digits_w", (8, hidden, 1), hidden, 3.0),
        numpy_helper.from_array((3 ** np.arange(8, dtype=np.float32)).reshape(1, 8, 1), "powers"),
        numpy_helper.from_array(np.asarray(0.999, dtype=np.float32), "inside"),
        numpy_helper.from_array(np.asarray(1.0, dtype=np.float32), "one"),
        _ints("zero", 0),
        _ints("four", 4),
        _ints("last_axis", 1),
    ]
    nodes = [
        helper.make_node("Conv", ["mel", "down1"], ["h1"], kernel_shape=[2], strides=[2]),
        helper.make_node("Tanh", ["h1"], ["a1"]),
        helper.make_node("Conv", ["a1", "down2"], ["h2"], kernel_shape=[2], strides=[2]),
        helper.make_node("Tanh", ["h2"], ["block0"]),
    ]
    for index in range(blocks):
        wide, name = 4 * hidden, f"block{index}"
        weights.append(_normal(rng, f"{name}_up", (wide, hidden, 1), hidden))
        weights.append(_normal(rng, f"{name}_down", (hidden, wide, 1), wide, 0.5))
        nodes += [
            helper.make_node("Conv", [name, f"{name}_up"], [f"{name}_h"], kernel_shape=[1]),
            helper.make_node("Relu", [f"{name}_h"], [f"{name}_a"]),
            helper.make_node("Conv", [f"{name}_a", f"{name}_down"], [f"{name}_y"], kernel_shape=[1]),
            helper.make_node("Add", [name, f"{name}_y"], [f"block{index + 1}"]),
        ]
    nodes += [
        helper.make_node("Conv", [f"block{blocks}", "digits_w"], ["levels"], kernel_shape=[1]),
        helper.make_node("Tanh", ["levels"], ["bounded"]),
        helper.make_node("Mul", ["bounded", "inside"], ["scaled"]),
        helper.make_node("Round", ["scaled"], ["rounded"]),
        helper.make_node("Add", ["rounded", "one"], ["digits"]),
        helper.make_node("Mul", ["digits", "powers"], ["terms"]),
        helper.make_node("ReduceSum", ["terms", "last_axis"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["all_ids"], to=TensorProto.INT32),
        helper.make_node("Cast", ["length"], ["frames"], to=TensorProto.INT64),
        helper.make_node("Div", ["frames", "four"], ["num_ids"]),
        helper.make_node("Slice", ["all_ids", "zero", "num_ids", "last_axis"], ["ids"]),
    ]
    inputs = [
        helper.make_tensor_value_info("mel", TensorProto.FLOAT, [1, 128, "T"]),
        helper.make_tensor_value_info("length", TensorProto.INT32, [1]),
    ]
    outputs = [helper.make_tensor_value_info("ids", TensorProto.INT32, [1, "N"])]
    return _model(nodes, inputs, outputs, weights)
