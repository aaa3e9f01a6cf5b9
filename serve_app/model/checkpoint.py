"""A CosyVoice2 checkpoint directory, unmodified, as sizes and tensors.

`load_checkpoint` reads what upstream's `CosyVoice2` reads, but nothing in the directory can run code. On the first load
it writes one safetensors file beside each .pt; later loads map that into memory, where processes share it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from serve_app.model import flow, language_model, vocoder
from serve_app.model.dims import CheckpointDims
from serve_app.model.faults import CheckpointFault
from serve_app.model.stored_network import StoredNetwork, open_network

__all__ = ["Checkpoint", "CheckpointFault", "load_checkpoint"]


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """Everything a directory holds, fp32 on the CPU, by upstream's names.

    Weight norm is folded into `X.weight`, hift's prefix `generator.` is off, the language model's text head left out.
    """

    dims: CheckpointDims
    language_model: dict[str, Tensor]
    flow: dict[str, Tensor]
    vocoder: dict[str, Tensor]


def load_checkpoint(directory: Path) -> Checkpoint:
    """Reads and checks the whole directory.

    Raises CheckpointFault: one for a file that cannot be read, or one that names every missing, extra and misshapen
    tensor of all three networks.
    """
    # PyYAML is optional for those who make their weights up.
    from serve_app.model.read_dims import read_dims  # noqa: PLC0415

    dims = read_dims(directory)
    llm_pt = open_network(directory, "llm", unused=language_model.UNUSED_TENSORS)
    flow_pt = open_network(directory, "flow")
    hift_pt = open_network(directory, "hift", prefix="generator.")
    faults = [
        *_faults(llm_pt, language_model.expected_tensors(dims.language_model)),
        *_faults(flow_pt, flow.expected_tensors(dims.flow)),
        *_faults(hift_pt, vocoder.expected_tensors(dims.vocoder)),
    ]
    if faults:
        raise CheckpointFault("the tensors do not fit the sizes in the yaml:\n  " + "\n  ".join(faults))
    return Checkpoint(dims, llm_pt.load(), flow_pt.load(), hift_pt.load())


def _faults(network: StoredNetwork, expected: Mapping[str, tuple[int, ...]]) -> list[str]:
    """One line for each missing, extra and misshapen tensor."""
    found, file = network.tensors, network.source.name
    return [
        *(f"{file}: {name} is missing" for name in expected if name not in found),
        *(f"{file}: {name} is not known" for name in found if name not in expected),
        *(
            f"{file}: {name} has shape {list(found[name].shape)}, not {list(shape)}"
            for name, shape in expected.items()
            if name in found and found[name].shape != shape
        ),
    ]
