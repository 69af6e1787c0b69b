"""The names of `harness.contracts.contract`, which a user takes from `harness` now."""

from __future__ import annotations

import sys
import warnings
from types import ModuleType
from typing import Any


class Moved(ModuleType):
    """A module that has become private: it goes on working for one release, and tells whoever uses it from outside."""

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if not name.startswith("_") and type(value) is not ModuleType:
            caller = str(sys._getframe(1).f_globals.get("__name__", ""))
            # Whatever imports for somebody else, such as importlib, asks for dunders only.
            if caller.partition(".")[0] not in ("harness", "importlib"):
                text = "harness.contracts.contract is private now: write `from harness import ...`"
                warnings.warn(text, DeprecationWarning, stacklevel=2)
        return value
