"""Contracts: what is right for a function. `load` finds one by its shipped name or as `module:attribute`."""

from __future__ import annotations

import importlib
import uuid
from collections.abc import Mapping
from dataclasses import replace

from harness.contracts.contract import Contract, Retry
from harness.environment.identity import Identity
from harness.errors import UsageError
from harness.options import Options

CLIENT = ":client"
"""In the claims of --run-as: a UUID that is each client's own."""

SHIPPED = {"scan_ticket": "harness.contracts.scan_ticket:SCAN_TICKET"}


def asked_for(options: Options) -> Contract:
    """The contract that the options name, with its calls made as they say. Raises UsageError for what cannot be."""
    return made_as(load(options.contract, names_in(options)), options)


def names_in(options: Options) -> dict[str, str]:
    """What --contract-option says."""
    return dict(each.split("=", 1) for each in options.contract_option)


def made_as(contract: Contract, options: Options) -> Contract:
    """The contract with its calls made as the options say. Raises UsageError for what cannot be."""
    if options.retry:
        contract = replace(contract, retry=Retry(options.retry))
    settings = dict(each.split("=", 1) for each in options.setting)
    if options.run_as is None and options.isolation is None and not settings:
        return contract
    role = options.run_as

    def identity(client: int) -> Identity:
        given = contract.identity_of(client) or Identity()
        if role is not None:
            # Each client somebody else, where the claims say so.
            given = replace(
                Identity.read(role.replace(CLIENT, str(uuid.UUID(int=client + 1)))), settings=given.settings
            )
        isolation = options.isolation or given.isolation
        return replace(given, isolation=isolation, settings={**given.settings, **settings})

    identity(0)  # what is wrong with it is said before anything is booted
    return replace(contract, identity=identity)


def load(name: str, options: Mapping[str, str] | None = None) -> Contract:
    """The contract with a shipped name, or the one at `module:attribute`; `options` name tables and columns otherwise.

    Raises UsageError when there is none.
    """
    path = SHIPPED.get(name, name)
    module_name, _, attribute = path.partition(":")
    next_step = f"give a shipped name ({', '.join(SHIPPED)}) or module:attribute, with the module importable"
    if not attribute:
        raise UsageError(f"There is no contract named {name!r}.", next_step=next_step)
    try:
        contract = getattr(importlib.import_module(module_name), attribute)
    except (Exception, SystemExit) as error:  # the module is somebody else's program
        raise UsageError(
            f"The contract {name!r} could not be loaded.",
            tried=f"{type(error).__name__}: {error}",
            next_step=next_step,
        ) from error
    if not isinstance(contract, Contract):
        raise UsageError(f"{name!r} is a {type(contract).__name__}, not a Contract.", next_step=next_step)
    return contract.with_options(options) if options else contract
