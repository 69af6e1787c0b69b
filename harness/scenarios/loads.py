"""Loads: the contract that the options name, of Python or of a scenario file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness import contracts
from harness.contracts.contract import Contract
from harness.contracts.declared import Load, contract_of
from harness.errors import UsageError
from harness.options import Options
from harness.scenarios.reader import read
from harness.scenarios.scenario import SUFFIX
from harness.verdict import thresholds


def asked_for(options: Options) -> Contract:
    """The contract that the options name: one of Python, or that of a scenario file. Raises UsageError."""
    if not options.contract.endswith(SUFFIX):
        return contracts.asked_for(options)
    path = Path(options.contract)
    scenario = read(path)
    if scenario.load is None:
        raise UsageError(
            f"{path} holds sessions, and no load.", next_step=f"check it: harness check {path}; or add `-- load:`"
        )
    return declared(scenario.load, options)


def declared(load: Load, options: Options) -> Contract:
    """The contract of a load, with its calls made as the options say. Raises UsageError for what cannot be."""
    contract = contract_of(load)
    try:
        thresholds.check(contract)
    except UsageError as error:
        raise UsageError(f"{load.path}: {error.what}", next_step=error.next_step) from error
    given: Mapping[str, str] = contracts.names_in(options)
    return contracts.made_as(contract.with_options(given) if given else contract, options)
