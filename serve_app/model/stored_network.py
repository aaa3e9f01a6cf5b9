"""One network's tensors on disk: upstream's .pt file, and the safetensors cache that is kept beside it.

Nothing in either file can run code: the .pt is read by torch's restricted unpickler, and safetensors holds only data.
"""

import json
import logging
import os
import pickle
import tempfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from serve_app.model.faults import CheckpointFault, first_line

log = logging.getLogger(__name__)

_CACHE_FORMAT = "3"
_TRAINING_NOTES = ("epoch", "step")
"""Numbers that upstream's training leaves beside the tensors."""

_NORM_SUFFIXES = (
    (".parametrizations.weight.original0", ".parametrizations.weight.original1"),
    (".weight_g", ".weight_v"),
)
"""How torch stores a weight-normalised weight: magnitude and direction, by its new and its old names."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor not yet read. direction: as stored; magnitude: of a weight-normalised one, [C, 1, ...]."""

    direction: Tensor
    magnitude: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.direction.shape)

    def fold(self) -> Tensor:
        """The weight itself. Weight norm (arXiv 1602.07868) is folded by the function with which upstream's modules
        compute it, in fp32: the pitch adds up over an utterance, so that even a last bit would be heard of again."""
        if self.magnitude is None:
            return self.direction
        return torch._weight_norm(self.direction.float(), self.magnitude.float(), 0)


@dataclass(frozen=True, slots=True)
class StoredNetwork:
    """What a directory holds of one network, by upstream's names, prefix stripped and weight norm folded.

    cache: the file to write once the tensors have been checked; None when they come from it.
    """

    tensors: Mapping[str, StoredTensor]
    source: Path
    cache: Path | None

    def load(self) -> dict[str, Tensor]:
        """Every tensor in fp32 on the CPU, memory-mapped where stored so. Writes the cache if there is none."""
        folded = {name: stored.fold() for name, stored in self.tensors.items()}
        if self.cache is not None and _write_cache(folded, self.cache, self.source):
            folded = {name: stored.fold() for name, stored in _read_cache(self.cache, self.source).items()}
        # Tensors that share memory keep sharing it when they have to be converted.
        converted: dict[_Place, Tensor] = {}
        return {name: converted.setdefault(_place(tensor), tensor.float()) for name, tensor in folded.items()}


def open_network(directory: Path, name: str, prefix: str = "", unused: Iterable[str] = ()) -> StoredNetwork:
    """Opens `name`.pt, or its cache when that is as new as the .pt.

    prefix: taken off names that start with it. unused: tensors that upstream stores and nobody needs.
    Raises CheckpointFault when the file is missing or holds anything but tensors.
    """
    source, cache = directory / f"{name}.pt", directory / f"{name}.serve.safetensors"
    if not source.is_file():
        raise CheckpointFault(f"{source.name} is missing")
    try:
        return StoredNetwork(_read_cache(cache, source), source, None)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        if cache.is_file():
            log.warning("%s is made again from %s: %s", cache.name, source.name, first_line(error))
        return StoredNetwork(_read_source(source, prefix, frozenset(unused)), source, cache)


def read_pickle(path: Path) -> dict[str, object]:
    """A .pt file that holds a dict with text keys; tensors are memory-mapped.

    Raises CheckpointFault when it cannot be read safely.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        raise CheckpointFault(f"{path.name} cannot be read safely: {first_line(error)}") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise CheckpointFault(f"{path.name} does not hold a dict of names")
    return content


def _read_source(source: Path, prefix: str, unused: frozenset[str]) -> dict[str, StoredTensor]:
    tensors: dict[str, Tensor] = {}
    faults = []
    for key, value in read_pickle(source).items():
        name = key.removeprefix(prefix)
        if name in unused or name in _TRAINING_NOTES:
            continue
        if type(value) is Tensor and value.layout == torch.strided and value.is_floating_point():
            tensors[name] = value
        else:
            faults.append(f"{name} is not a tensor of floating-point numbers")
    if faults:
        raise CheckpointFault(f"{source.name}: {'; '.join(faults)}")
    return _pair_up(tensors, source.name)


def _pair_up(tensors: dict[str, Tensor], file_name: str) -> dict[str, StoredTensor]:
    """Joins the two halves of every weight-normalised weight under the weight's own name."""
    stored: dict[str, StoredTensor] = {}
    for name, tensor in tensors.items():
        for magnitude_suffix, direction_suffix in _NORM_SUFFIXES:
            if name.endswith(direction_suffix):
                stem = name.removesuffix(direction_suffix)
                magnitude = tensors.get(stem + magnitude_suffix)
                if magnitude is None or magnitude.shape != (len(tensor), *(1,) * (tensor.ndim - 1)):
                    raise CheckpointFault(f"{file_name}: {name} has no magnitude that fits it")
                stored[f"{stem}.weight"] = StoredTensor(tensor, magnitude)
                break
            if name.endswith(magnitude_suffix) and name.removesuffix(magnitude_suffix) + direction_suffix in tensors:
                break
        else:
            stored[name] = StoredTensor(tensor)
    return stored


_Place = tuple[int, tuple[int, ...], tuple[int, ...], torch.dtype]


def _place(tensor: Tensor) -> _Place:
    """Equal for tensors that are the same numbers in the same memory."""
    return (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)


def _stamp(source: Path) -> str:
    """Changes whenever the source does."""
    status = source.stat()
    return f"{_CACHE_FORMAT}:{status.st_size}:{status.st_mtime_ns}"


def _read_cache(cache: Path, source: Path) -> dict[str, StoredTensor]:
    """Raises OSError, SafetensorError, ValueError or KeyError when there is no sound cache of this source."""
    with safe_open(str(cache), framework="pt") as file:
        notes = file.metadata() or {}
        if notes.get("source") != _stamp(source):
            raise ValueError(f"{cache.name} was made from another {source.name}")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is not a dict)
    checksums: dict[str, int] = json.loads(notes["checksums"])
    damaged = [name for name, tensor in tensors.items() if _checksum(tensor) != checksums[name]]
    if damaged:
        raise ValueError(f"{cache.name} is damaged: {', '.join(damaged[:3])}")
    same: dict[str, str] = json.loads(notes.get("same", "{}"))
    return {name: StoredTensor(tensors[same.get(name, name)]) for name in (*tensors, *same)}


def _write_cache(tensors: Mapping[str, Tensor], cache: Path, source: Path) -> bool:
    """Writes beside the source, all or nothing; False where that is not possible, which costs only speed."""
    first: dict[_Place, str] = {}
    same: dict[str, str] = {}
    for name, tensor in tensors.items():
        original = first.setdefault(_place(tensor), name)
        if original != name:
            same[name] = original
    unique = {name: _alone(tensor) for name, tensor in tensors.items() if name not in same}
    checksums = {name: _checksum(tensor) for name, tensor in unique.items()}
    notes = {"source": _stamp(source), "same": json.dumps(same), "checksums": json.dumps(checksums)}
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{cache.name}.", dir=cache.parent)
    except OSError:
        return False
    os.close(handle)
    path = Path(temporary)
    try:
        save_file(unique, path, metadata=notes)
        path.chmod(source.stat().st_mode & 0o666)  # whoever may read the one may read the other
        path.replace(cache)
    except (OSError, SafetensorError):
        path.unlink(missing_ok=True)
        return False
    return True


def _checksum(tensor: Tensor) -> int:
    """CRC-32 of a contiguous tensor's bytes: it finds what a disk or a copy damages; it is no proof of origin."""
    return zlib.crc32(tensor.detach().reshape(-1).view(torch.uint8).numpy().data)


def _alone(tensor: Tensor) -> Tensor:
    """The tensor in memory of its own, which safetensors asks for."""
    if tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes:
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)
