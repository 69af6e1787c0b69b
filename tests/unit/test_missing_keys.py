"""Keys that nobody made, where a contract says nothing of them."""

from __future__ import annotations

import json
import uuid
from typing import Any

import psycopg
import pytest

from harness.targets.keys import missing_keys
from harness.targets.values import Type


def kind(name: str, **more: Any) -> Type:
    oid = psycopg.adapters.types[name].oid
    return Type(oid, name, oid, **more)


def test_a_key_that_is_not_there_is_of_the_keys_type() -> None:
    """A number below zero, another uuid, a text, an array of one of these; each once."""
    assert missing_keys(kind("int4"), 2) == [-1, -2]
    [text] = missing_keys(kind("text"), 1) or []
    assert str(uuid.UUID(str(text))) == text
    assert all(isinstance(key, uuid.UUID) for key in missing_keys(kind("uuid"), 3) or [None])
    assert missing_keys(Type(1007, "integer[]", 1007, kind("int4")), 2) == [(-1,), (-2,)]
    [member] = missing_keys(kind("jsonb", is_json=True), 1) or []
    assert json.loads(str(member)).keys() == {"missing"}


@pytest.mark.parametrize(
    "of", [kind("date"), kind("bool"), Type(9, "office.wish", 9, attributes=(("n", kind("int4")),))]
)
def test_of_other_types_none_is_made_up(of: Type) -> None:
    """A date or a composite value that is not there is known to nobody."""
    assert missing_keys(of, 1) is None
    assert missing_keys(Type(10, f"{of.name}[]", 10, of), 1) is None
