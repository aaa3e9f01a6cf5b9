"""Every fault of plain data against a pydantic model: misspelt keys, which many models let pass, and wrong values.

pydantic stops at a model's own checks before it looks at the fields below, so each field and each nested model is
validated by itself: one run names everything.
"""

import copy
import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import get_args

from pydantic import BaseModel, ValidationError

Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, and where. is_fault: False is a warning."""

    place: Place
    message: str
    is_fault: bool = True

    def is_repeated_by(self, other: "Finding") -> bool:
        """Whether `other` says the same of a part of this place."""
        size = len(self.place)
        return self.message == other.message and len(other.place) > size and other.place[:size] == self.place

    def __str__(self) -> str:
        """`applications[0].args.checkpoint: what is wrong`."""
        text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.place).removeprefix(".")
        return f"{text}: {self.message}" if text else self.message


def schema_faults(model: type[BaseModel], data: object, place: Place = ()) -> list[Finding]:
    """Faults in the order of the data, each once, at its innermost place."""
    findings = list(dict.fromkeys(_faults(model, data, place)))
    return [finding for finding in findings if not any(map(finding.is_repeated_by, findings))]


def unknown_key(key: object, known: Iterable[str]) -> str:
    """The message for a key that is none of `known`."""
    return "unknown key" + suggestion(str(key), known)


def suggestion(word: str, known: Iterable[str]) -> str:
    """`; did you mean X?` when one of `known` is near, else what is known, if that is little."""
    choices = sorted(known)
    near = difflib.get_close_matches(word, choices, n=1)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; known are {', '.join(choices)}" if 0 < len(choices) <= 8 else ""


def _faults(model: type[BaseModel], data: object, place: Place) -> Iterator[Finding]:
    if not isinstance(data, dict):
        yield Finding(place, f"must be a mapping of keys to values, not {_named(data)}")
        return
    required = {name: data[name] for name, field in model.model_fields.items() if field.is_required() and name in data}
    for key, value in data.items():
        field = model.model_fields.get(key) if isinstance(key, str) else None
        if field is None:
            yield Finding((*place, key), unknown_key(key, model.model_fields))
            continue
        nested = nested_model(field.annotation)
        if nested is None or value is None or isinstance(value, list) is not _is_list_of(field.annotation):
            yield from _of_pydantic(model, {**required, key: value}, place, only=key)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                yield from _faults(nested, item, (*place, key, index))
        else:
            yield from _faults(nested, value, (*place, key))
    yield from _of_pydantic(model, data, place, only=None)


def _of_pydantic(
    model: type[BaseModel], data: Mapping[str, object], place: Place, only: str | None
) -> Iterator[Finding]:
    """What pydantic says of the field `only`, or, for None, of the model as a whole and of keys that it lacks."""
    try:
        model.model_validate(copy.deepcopy(dict(data)))  # some of Ray's validators change what they are given
    except ValidationError as error:
        seen: set[Place] = set()
        for fault in error.errors(include_url=False):
            kind, steps = fault["type"], fault["loc"]
            if kind == "extra_forbidden":
                continue
            message = fault["msg"].removeprefix("Value error, ")
            message = message[:1].lower() + message[1:]
            if kind == "missing" and len(steps) == 1:
                yield Finding((*place, *steps), "is required")
            elif only is None and not steps:
                yield Finding(place, message)
            elif only is not None and steps[:1] == (only,):
                where = (*place, *_existing(data, steps))
                if where not in seen:  # else: of another member of the same union
                    yield Finding(where, message)
                seen.add(where)
            elif only is None and len(steps) == 1 and steps[0] in data:
                # of a nested model's whole: names in a list, say, that must differ
                yield Finding((*place, *steps), message)
    except (TypeError, ValueError, AttributeError, ImportError) as error:
        # Ray's own validators trip over values of the wrong type
        yield Finding(place if only is None else (*place, only), f"cannot be used: {error}")


def _existing(data: object, steps: tuple[str | int, ...]) -> Place:
    """The steps that lead through the data; pydantic puts names of union members between them."""
    place: list[str | int] = []
    for step in steps:
        if (isinstance(data, dict) and step in data) or (isinstance(data, list) and step in range(len(data))):
            data = data[step]  # type: ignore[index]
            place.append(step)
    return tuple(place)


def nested_model(annotation: object) -> type[BaseModel] | None:
    """The model within `Model`, `Model | None`, `list[Model]` or `dict | Model`, if there is one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(nested_model, get_args(annotation))), None)


def _is_list_of(annotation: object) -> bool:
    """Whether a list is what is expected there."""
    return any(getattr(kind, "__origin__", None) is list for kind in (annotation, *get_args(annotation)))


def _named(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
