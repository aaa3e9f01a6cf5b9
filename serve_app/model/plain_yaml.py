"""cosyvoice2.yaml as plain data.

Upstream reads it with hyperpyyaml, which imports and calls whatever its tags name. Here `!new:`, `!name:` and `!apply:`
are dropped and leave their arguments, and `!ref <a> * <b>` is looked up and computed by the few rules below. Nothing is
ever imported or called; YAML's own `!!python/...` tags are refused by the safe loader.
"""

import ast
import operator
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from serve_app.model.faults import CheckpointFault, first_line

_REFERENCE = re.compile(r"<([^<>]+)>")
_ARITHMETIC = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}
_MAX_BYTES = 1 << 20
_MAX_DEPTH = 16
_MAX_NUMBER = 1e15


@dataclass(frozen=True, slots=True)
class _Reference:
    """The text of a `!ref`."""

    text: str


class _PlainLoader(yaml.SafeLoader):
    """The safe loader, with every application tag turned into the data below it."""


def _plain(loader: _PlainLoader, tag: str, node: yaml.Node) -> object:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    assert isinstance(node, yaml.ScalarNode)
    text = loader.construct_scalar(node)
    return _Reference(str(text)) if tag in ("!ref", "!copy") else text


_PlainLoader.add_multi_constructor("!", lambda loader, suffix, node: _plain(loader, f"!{suffix}", node))


class PlainYaml:
    """A parsed file, addressed by paths such as `flow.encoder.num_blocks`."""

    def __init__(self, root: Mapping[str, object], name: str) -> None:
        self._root = root
        self._name = name

    @classmethod
    def read(cls, path: Path) -> "PlainYaml":
        """Raises CheckpointFault when the file is missing, too large, or not a mapping in safe YAML."""
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise CheckpointFault(f"{path.name} is larger than {_MAX_BYTES} bytes")
            root = yaml.load(path.read_text(encoding="utf-8"), Loader=_PlainLoader)  # a SafeLoader
        except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:  # a number of 5,000 digits: ValueError
            raise CheckpointFault(f"{path.name} cannot be read: {first_line(error)}") from error
        if not isinstance(root, dict):
            raise CheckpointFault(f"{path.name} is not a mapping")
        return cls(root, path.name)

    def integer(self, path: str, default: int | None = None) -> int:
        value = self._find(path, default)
        if isinstance(value, float) and value.is_integer():  # what a `!ref` with a division gives
            return int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(path, "a whole number")
        return value

    def number(self, path: str, default: float | None = None) -> float:
        value = self._find(path, default)
        if isinstance(value, str):  # YAML 1.1 reads 1e-06, which has no dot, as text
            try:
                return float(value)
            except ValueError:
                raise self._wrong(path, "a number") from None
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > sys.float_info.max:
            raise self._wrong(path, "a number")
        return float(value)

    def text(self, path: str, default: str | None = None) -> str:
        value = self._find(path, default)
        if not isinstance(value, str):
            raise self._wrong(path, "text")
        return value

    def integers(self, path: str, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        value = self._find(path, default)
        if not isinstance(value, list | tuple):
            raise self._wrong(path, "a list of whole numbers")
        items = [self._resolve(item, path, 0) for item in value]
        if not all(isinstance(item, int) and not isinstance(item, bool) for item in items):
            raise self._wrong(path, "a list of whole numbers")
        return tuple(item for item in items if isinstance(item, int))

    def integer_lists(self, path: str) -> tuple[tuple[int, ...], ...]:
        value = self._find(path, None)
        if not isinstance(value, list):
            raise self._wrong(path, "a list of lists")
        return tuple(PlainYaml({"item": item}, f"{self._name} ({path})").integers("item") for item in value)

    def _find(self, path: str, default: object) -> object:
        """The value at a path; `default` where it is absent, unless that is None.

        Raises CheckpointFault when it is absent and has no default.
        """
        found = self._walk(path.split("."), path, 0)
        if found is not None:
            return found
        if default is None:
            raise CheckpointFault(f"{self._name} lacks {path}")
        return default

    def _walk(self, keys: list[str], path: str, depth: int) -> object:
        value: object = self._root
        for key in keys:
            if isinstance(value, dict):
                value = value.get(key)
            elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
                value = value[int(key)]
            else:
                return None
            value = self._resolve(value, path, depth)
        return value

    def _resolve(self, value: object, path: str, depth: int) -> object:
        """Follows a reference, and computes with those it names."""
        if not isinstance(value, _Reference):
            return value
        if depth == _MAX_DEPTH:
            raise CheckpointFault(f"{self._name}: the references at {path} run in a circle")

        def look_up(match: re.Match[str]) -> object:
            keys = re.split(r"[.\[\]]+", match[1].rstrip("]"))
            found = self._walk([key.strip("'\" ") for key in keys], path, depth + 1)
            if found is None:
                raise CheckpointFault(f"{self._name}: {path} refers to <{match[1]}>, which it lacks")
            return found

        whole = _REFERENCE.fullmatch(value.text.strip())
        if whole:
            return look_up(whole)
        text = _REFERENCE.sub(lambda match: str(look_up(match)), value.text)
        try:
            return _compute(ast.parse(text, mode="eval").body)
        except (SyntaxError, ArithmeticError, RecursionError, ValueError):
            return text  # a reference inside text, such as a file name

    def _wrong(self, path: str, expected: str) -> CheckpointFault:
        return CheckpointFault(f"{self._name}: {path} is not {expected}")


def _compute(node: ast.expr) -> int | float:
    """Arithmetic on numbers. ValueError for anything else, and for results that only a hostile file would want."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_compute(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        result: int | float = _ARITHMETIC[type(node.op)](_compute(node.left), _compute(node.right))
        if abs(result) < _MAX_NUMBER:
            return result
    raise ValueError("not arithmetic on numbers of a sensible size")
