"""Values of any type in Postgres's text form: what a parameter is sent as where there is no binary form of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

JSON_TYPES = frozenset({"json", "jsonb"})


class JsonText(str):
    """The text of a JSON value, as the server wrote it."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Type:
    """A type as the server knows it."""

    oid: int
    name: str
    """As `format_type` spells it."""
    base: int
    """What a domain is made of in the end; its own oid where it is none."""
    element: Type | None = None
    """Of an array."""
    attributes: tuple[tuple[str, Type], ...] = ()
    """Of a composite type."""
    is_json: bool = False


def text_form(value: Any, kind: Type, adapt: Callable[[Any], str]) -> str | None:
    """A Python value as the input text of a type; `adapt` gives that of a plain value.

    Text is taken as it is. Lists become arrays, tuples and mappings composite values, and for JSON types whatever JSON
    has. Raises TypeError or ValueError for what the type cannot hold.
    """
    if value is None:
        return None
    if kind.is_json:
        return value if isinstance(value, str) else json_text(getattr(value, "obj", value))
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError("text cannot hold the character NUL")
        return value
    if kind.element is not None and isinstance(value, (list, tuple)):
        return f"{{{','.join(_element(each, kind, kind.element, adapt) for each in value)}}}"
    if kind.attributes and isinstance(value, (list, tuple, Mapping)):
        return f"({','.join(_field(each, of, adapt) for each, of in _fields(value, kind))})"
    if isinstance(value, (list, Mapping)) or kind.element is not None or kind.attributes:
        raise TypeError(f"a {type(value).__name__} is not a value of it")
    return adapt(value)


def json_text(value: Any) -> str:
    """The one text of a JSON value: members in order of their names."""
    return json.dumps(value, sort_keys=True, default=str, ensure_ascii=False, allow_nan=False)


def _element(value: Any, array: Type, element: Type, adapt: Callable[[Any], str]) -> str:
    if value is None:
        return "NULL"
    nested = isinstance(value, (list, tuple)) and not element.attributes and not element.is_json
    text = text_form(value, array if nested else element, adapt)
    assert text is not None
    return text if nested else _quoted(text)


def _field(value: Any, kind: Type, adapt: Callable[[Any], str]) -> str:
    text = text_form(value, kind, adapt)
    return "" if text is None else _quoted(text)


def _quoted(text: str) -> str:
    return '"{}"'.format(text.replace("\\", "\\\\").replace('"', '\\"'))


def _fields(value: Any, kind: Type) -> list[tuple[Any, Type]]:
    names = [name for name, _ in kind.attributes]
    if isinstance(value, Mapping):
        if unknown := set(value) - set(names):
            raise ValueError(f"{kind.name} has no {sorted(map(str, unknown))[0]}; it has {', '.join(names)}")
        value = [value.get(name) for name in names]
    if len(value) != len(names):
        raise ValueError(f"{kind.name} has {len(names)} attributes, and {len(value)} values are given")
    return list(zip(value, (of for _, of in kind.attributes), strict=True))
