"""Frozen dataclasses to plain JSON values and back, by their type hints, and the JSON Schema of these values.

What is plain: None, booleans, numbers, texts, lists, and mappings with texts as keys. Types that are understood: these,
`Any` for a plain value, enums, dataclasses, `X | Y`, tuples, sequences and mappings of them.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from functools import cache
from typing import Any, TypeVar, Union

T = TypeVar("T")

LEFT_OUT: Mapping[str, bool] = {"plain": False}
"""Metadata of a dataclass's field that has no place in its plain form; it needs a default, and `compare=False`."""


def to_plain(value: Any) -> Any:
    """The plain form. What JSON has no word for becomes text, and a number that is none (NaN, infinity) None."""
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in _fields(type(value))}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((to_plain(item) for item in value), key=str)
    return str(value)


def from_plain(kind: type[T], value: Any, where: str = "") -> T:
    """The value of that type. Members that its dataclasses do not know are passed over.

    Raises ValueError that says where it does not fit.
    """
    made: T = _made(kind, value, where or kind.__name__)
    return made


def _made(kind: Any, value: Any, where: str) -> Any:
    if kind is Any:
        return value
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return _one_of(arguments, value, where)
    if origin is tuple and (len(arguments) != 2 or arguments[1] is not Ellipsis):
        if len(_list(value, where)) != len(arguments):
            raise ValueError(f"{where} has {len(value)} entries and not {len(arguments)}")
        return tuple(_made(each, item, f"{where}[{at}]") for at, (each, item) in enumerate(zip(arguments, value)))  # noqa: B905
    if origin in (tuple, Sequence):
        return tuple(_made(arguments[0], item, f"{where}[{at}]") for at, item in enumerate(_list(value, where)))
    if origin is Mapping:
        return {key: _made(arguments[1], item, f"{where}.{key}") for key, item in _object(value, where).items()}
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, _object(value, where), where)
    if isinstance(kind, type) and issubclass(kind, Enum):
        try:
            return kind(value)
        except ValueError:
            raise ValueError(f"{where} is {value!r} and not one of {', '.join(str(e.value) for e in kind)}") from None
    if kind is float and type(value) is int:
        return float(value)
    if kind is None or kind is type(None):
        kind = type(None)
    if type(value) is not kind:
        raise ValueError(f"{where} is {value!r} and not {_JSON_TYPES[kind]}")
    return value


def _one_of(kinds: Sequence[Any], value: Any, where: str) -> Any:
    reasons = []
    for kind in kinds:
        try:
            return _made(kind, value, where)
        except ValueError as error:
            if value is not None or kind is not type(None):
                reasons.append(str(error))
    raise ValueError(reasons[0])


def _dataclass(kind: Any, value: Mapping[str, Any], where: str) -> Any:
    hints = _hints(kind)
    found = {f.name: _made(hints[f.name], value[f.name], f"{where}.{f.name}") for f in _fields(kind) if f.name in value}
    missing = [f.name for f in _fields(kind) if f.name not in value and not _has_default(f)]
    if missing:
        raise ValueError(f"{where} has no {missing[0]}")
    return kind(**found)


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{where} is {value!r} and not a list")
    return value


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is {value!r} and not an object")
    return value


def schema(kind: type[Any]) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a dataclass's plain form."""
    definitions: dict[str, Any] = {}
    top = _schema(kind, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **top,
        "$defs": dict(sorted(definitions.items())),
    }


def _schema(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    if kind is Any:
        return {}
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(each, definitions) for each in arguments]}
    if origin is tuple and (len(arguments) != 2 or arguments[1] is not Ellipsis):
        items = [_schema(each, definitions) for each in arguments]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    if origin in (tuple, Sequence):
        return {"type": "array", "items": _schema(arguments[0], definitions)}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _schema(arguments[1], definitions)}
    if dataclasses.is_dataclass(kind):
        name = kind.__name__ if isinstance(kind, type) else str(kind)
        if name not in definitions:
            definitions[name] = {}  # it may hold itself
            hints: dict[str, Any] = _hints(kind)  # type: ignore[arg-type]
            definitions[name] = {
                "type": "object",
                "description": " ".join((kind.__doc__ or "").split()),
                "properties": {f.name: _schema(hints[f.name], definitions) for f in _fields(kind)},
                "required": [f.name for f in _fields(kind) if not _has_default(f)],
            }
        return {"$ref": f"#/$defs/{name}"}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"enum": [each.value for each in kind]}
    return {"type": _JSON_TYPES[kind].rpartition(" ")[2]}


_JSON_TYPES: Mapping[Any, str] = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    type(None): "null",
}


def _fields(kind: Any) -> Iterator[dataclasses.Field[Any]]:
    return (field for field in dataclasses.fields(kind) if field.metadata.get("plain", True))


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)
