"""The networks of a checkpoint's front end cannot reach a file outside their folder (pickles, YAML: tests/model)."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from serve_app.errors import CheckpointError
from serve_app.preprocess.voice_prompt import _session


@pytest.mark.parametrize("rewritten", [False, True])
@pytest.mark.parametrize("location", ["../secret", "a/../../secret", "absolute"])
def test_weights_outside_the_checkpoint_are_not_read(tmp_path: Path, location: str, rewritten: bool) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(np.arange(4, dtype=np.float32).tobytes())
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    entry = weights.external_data.add()
    entry.key, entry.value = "location", str(secret) if location == "absolute" else location
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    graph = helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "g", [], [output], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder = tmp_path / "checkpoint"
    (folder / "a").mkdir(parents=True)
    (folder / "campplus.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match=r"campplus\.onnx cannot be loaded"):
        _session(folder / "campplus.onnx", 1, rewrite_pooling=rewritten)
