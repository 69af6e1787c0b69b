"""Options: where they come from, what beats what, and what is no value."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ExitStatus, UsageError
from harness.load import patterns
from harness.load.burst import Burst
from harness.options import OPTIONS, Options
from harness.options import resolve as resolve_them

SAMPLES = {
    "server": ("embedded", "embedded"),
    "database": ("given", "given"),
    "postgres_image": ("postgres:15", "postgres:15"),
    "setup": ("alembic upgrade head", "alembic upgrade head"),
    "platform": ("supabase", "supabase"),
    "default_privileges": ("closed", "closed"),
    "apply_timeout": ("9", 9.0),
    "keep_going": ("yes", True),
    "contract": ("a:B", "a:B"),
    "run_as": ("authenticated", "authenticated"),
    "isolation": ("serializable", "serializable"),
    "profile": ("soak", "soak"),
    "clients": ("7", 7),
    "duration": ("1.5", 1.5),
    "pause": ("0", 0.0),
    "rounds": ("3", 3),
    "limit": ("2.5", 2.5),
    "rate": ("2.5", 2.5),
    "duplicates": ("0", 0.0),
    "distribution": ("constant", "constant"),
    "calls": ("4", 4),
    "pool_size": ("4", 4),
    "timeout": ("0.5", 0.5),
    "record": ("r.json", Path("r.json")),
    "html": ("r.html", Path("r.html")),
    "markdown": ("r.md", Path("r.md")),
    "sarif": ("r.sarif", Path("r.sarif")),
    "code_quality": ("r.cq.json", Path("r.cq.json")),
    "github_summary": ("yes", True),
    "http": ("yes", True),
    "postgrest": ("bin/postgrest", "bin/postgrest"),
    "postgrest_image": ("postgrest:1", "postgrest:1"),
    "db_pool": ("4", 4),
}
OF_PATTERNS = patterns.options()


def resolve(*sources: Any) -> Options:
    return resolve_them(*sources, OF_PATTERNS)


def value_of(options: Options, name: str) -> Any:
    return options.load[name] if name in {each.name for each in OF_PATTERNS} else getattr(options, name)


REPEATABLE = [option.name for option in OPTIONS if option.repeatable]


def test_every_option_has_a_sample_here() -> None:
    """A new option is tested as the others are."""
    assert set(SAMPLES) | set(REPEATABLE) == {option.name for option in (*OPTIONS, *OF_PATTERNS)}


def test_every_option_is_a_field_and_every_field_an_option() -> None:
    """The table and the value it fills cannot differ."""
    assert {option.name for option in OPTIONS} == set(Options.__dataclass_fields__) - {"load", "configured"}


def test_nothing_given_is_the_default() -> None:
    """No source, no change."""
    assert resolve({}, {}, {}) == Options()


@pytest.mark.parametrize("name", SAMPLES)
def test_each_source_alone_gives_the_value(name: str) -> None:
    """An option can be given on the command line, in the environment and in the ini file."""
    text, value = SAMPLES[name]
    for sources in (({name: text}, {}, {}), ({}, {name: text}, {}), ({}, {}, {f"HARNESS_{name.upper()}": text})):
        assert value_of(resolve(*sources), name) == value


@pytest.mark.parametrize(
    ("command_line", "environment", "ini", "clients"),
    [("1", "2", "3", 1), (None, "2", "3", 2), (None, None, "3", 3), (None, None, None, None), ("1", None, "3", 1)],
)
def test_command_line_beats_environment_beats_ini_beats_default(
    command_line: str | None, environment: str | None, ini: str | None, clients: int | None
) -> None:
    """The nearest source wins."""
    variables = {} if environment is None else {"HARNESS_CLIENTS": environment}
    assert resolve({"clients": command_line}, {"clients": ini}, variables).load.get("clients") == clients


@pytest.mark.parametrize("name", REPEATABLE)
def test_a_repeatable_option_holds_several_paths(name: str) -> None:
    """In the order given; in an environment variable they are separated as in PATH."""
    texts = {"contract_option": ["a=b", "c=d"], "setting": ["a=b", "c=d"], "retry": ["40001", "40P01"]}.get(name)
    expected = (Path("a"), Path("b")) if texts is None else tuple(texts)
    given = texts or ["a", "b"]
    assert getattr(resolve({name: given}, {}, {}), name) == expected
    assert getattr(resolve({}, {name: given}, {}), name) == expected
    assert getattr(resolve({}, {}, {f"HARNESS_{name.upper()}": os.pathsep.join(given)}), name) == expected


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("clients", "0"),
        ("clients", "-1"),
        ("clients", "ten"),
        ("clients", "1.5"),
        ("duration", "0"),
        ("duration", "-1"),
        ("duration", "inf"),
        ("duration", "nan"),
        ("duration", "soon"),
        ("pause", "-0.1"),
        ("pause", "nan"),
        ("rounds", "0"),
        ("rounds", "1_0"),
        ("rounds", "\u0663"),
        ("rate", "0"),
        ("duplicates", "1"),
        ("duplicates", "-0.1"),
        ("distribution", "uniform"),
        ("calls", "0"),
        ("pool_size", "0"),
        ("timeout", "0"),
        ("profile", "fast"),
        ("http", "perhaps"),
        ("db_pool", "0"),
    ],
)
def test_a_value_that_cannot_be_meant_names_its_source(name: str, text: str) -> None:
    """The error says which option, from where, and what it was."""
    sources: list[tuple[tuple[Any, ...], str]] = [
        (({name: text}, {}, {}), "--" + name.replace("_", "-")),
        (({}, {}, {f"HARNESS_{name.upper()}": text}), f"HARNESS_{name.upper()}"),
        (({}, {name: text}, {}), f"harness_{name}"),
    ]
    for given, source in sources:
        with pytest.raises(UsageError) as caught:
            resolve(*given)
        assert caught.value.exit_status is ExitStatus.USAGE
        assert caught.value.what.startswith(f"{source} is {text!r}")


@pytest.mark.parametrize(
    "pattern", [{"name": "arrivals", "rate": 1e6, "duration": 1e6}, {"name": "race", "rounds": 10**6, "clients": 50}]
)
def test_a_plan_that_does_not_fit_into_the_memory_is_refused(pattern: dict[str, Any]) -> None:
    """Before a key of it is made: 24 GB were filled by `--rate 1e12`."""
    kind = patterns.PATTERNS[pattern.pop("name")]
    with pytest.raises(UsageError, match="10000000 fit into the memory"):
        kind(**pattern)


@pytest.mark.parametrize(
    ("given", "made"),
    [
        (({"duration": "2"}, {"HARNESS_CALLS": "7"}, {}), {"duration": 2.0, "calls": None}),
        (({"calls": "7"}, {"HARNESS_DURATION": "2"}, {}), {"duration": None, "calls": 7}),
        (({}, {"HARNESS_DURATION": "2"}, {"calls": "7"}), {"duration": 2.0, "calls": None}),
        (({}, {"HARNESS_CALLS": "7"}, {"duration": "2"}), {"duration": None, "calls": 7}),
    ],
)
def test_when_a_burst_ends_the_nearest_source_says(
    given: tuple[dict[str, str], dict[str, str], dict[str, str]], made: dict[str, Any]
) -> None:
    """A duration on the command line beats calls in the environment or a file, and the other way round."""
    command_line, environment, ini = given
    options = resolve_them(command_line, ini, environment, patterns.options())
    burst = Burst.of("quick", options.load)
    assert {"duration": burst.duration, "calls": burst.calls} == made
