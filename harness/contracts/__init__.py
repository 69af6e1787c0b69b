"""Contracts: what is right for a function. `load` finds one by its shipped name or as `module:attribute`."""

from __future__ import annotations

import importlib

from harness.contracts.contract import Contract
from harness.errors import UsageError

SHIPPED = {"scan_ticket": "harness.contracts.scan_ticket:SCAN_TICKET"}


def load(name: str) -> Contract:
    """The contract with a shipped name, or the one at `module:attribute`.

    Raises UsageError when there is none.
    """
    path = SHIPPED.get(name, name)
    module_name, _, attribute = path.partition(":")
    next_step = f"give a shipped name ({', '.join(SHIPPED)}) or module:attribute, with the module importable"
    if not attribute:
        raise UsageError(f"There is no contract named {name!r}.", next_step=next_step)
    try:
        contract = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise UsageError(
            f"The contract {name!r} could not be loaded.", tried=str(error), next_step=next_step
        ) from error
    if not isinstance(contract, Contract):
        raise UsageError(f"{name!r} is a {type(contract).__name__}, not a Contract.", next_step=next_step)
    return contract
