"""What a step touched, as the server's own counters and locks tell (see measured() in turnstile.sql).

The statistics of the running transaction count every scan and write of a table, whoever did it: a foreign key, a
cascade, a trigger, a view, dynamic SQL, a language that cannot be split. They outlast the rollback of a block. The
locks that are held add sequences, advisory locks and table locks. What neither shows: how strong a row lock is, a lock
that was refused or let go within the step, a notification. So where the text was not read in full, what was scanned
counts as locked (`Access.at_its_strongest`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from harness.sqltext.access import ADVISORY_LOCKS, Access

_WEAK = frozenset({"AccessShareLock", "RowShareLock", "RowExclusiveLock"})
_OF_ROWS = frozenset({"RowShareLock", "RowExclusiveLock"})


class Keeps(Enum):
    """What a backend keeps when its transaction is over."""

    LOCKS = "advisory locks"
    SEQUENCES = "cached values of sequences"
    TABLES = "temporary tables"


@dataclass(frozen=True, slots=True)
class Relation:
    """A table, an index of it, a sequence, or what stands for tables."""

    name: str
    """Of the table, with its schema, as access by text spells it; empty: not looked at."""
    kind: str
    """As in pg_class.relkind; `i` for an index."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The counters and locks of one backend at one moment of its transaction."""

    counters: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Relation -> scans, rows written."""
    locks: frozenset[str] = frozenset()
    """As told: relation and mode, or an advisory lock."""


def read(raw: str) -> Reading:
    """What measured() gave."""
    counted, _, held = raw.partition("|")
    counters = {}
    for item in counted.split():
        relation, scans, written = item.split(":")
        counters[relation] = (int(scans), int(written))
    return Reading(counters, frozenset(held.split()))


def kept(reading: Reading, relations: Mapping[str, Relation]) -> set[Keeps]:
    """What the backend may keep beyond its transaction."""
    found = set()
    for lock in reading.locks:
        oid = lock.partition(":")[0]
        relation = relations.get(oid)
        if oid == "advisory":
            found.add(Keeps.LOCKS)
        elif relation is None:
            found.add(Keeps.TABLES)
        elif relation.kind == "S":
            found.add(Keeps.SEQUENCES)
    return found


def between(before: Reading, after: Reading, relations: Mapping[str, Relation]) -> Access:
    """What was touched from one reading to the next."""
    scanned: set[str] = set()
    written: set[str] = set()
    everything = False
    for oid, (scans, rows) in after.counters.items():
        scans_before, rows_before = before.counters.get(oid, (0, 0))
        name = relations[oid].name
        if scans != scans_before:
            scanned.add(name)
        if rows != rows_before:
            written.add(name)
    noticed: set[str] = set()
    for lock in after.locks - before.locks:
        oid, _, mode = lock.partition(":")
        if oid == "advisory":
            written.add(ADVISORY_LOCKS)
            continue
        relation = relations.get(oid)
        if mode == "SIReadLock":
            continue  # of what was read, at serializable
        if mode not in _WEAK:
            everything = True
        elif relation is None or relation.kind not in "rpSm":
            continue  # a view, or a relation made meanwhile, in this transaction
        elif relation.kind == "S" or (mode in _OF_ROWS and relation.name in scanned):
            written.add(relation.name)
        else:
            noticed.add(relation.name)
    return Access(frozenset(scanned | noticed), frozenset(written), everything=everything)
