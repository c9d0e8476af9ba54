from __future__ import annotations

import re

import pytest

from fasterseg import errors
from fasterseg.errors import EXIT_CODES, FastersegError

SUBCLASSES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, FastersegError)
]


def test_exit_codes_are_those_promised_to_users() -> None:
    assert set(EXIT_CODES) == {0, 1, 2, 3, 4, 5, 6, 130}


def test_module_documentation_lists_the_same_codes() -> None:
    assert errors.__doc__ is not None
    documented = re.findall(r"^(\d+)  ", errors.__doc__, re.MULTILINE)
    assert [int(code) for code in documented] == list(EXIT_CODES)


@pytest.mark.parametrize("kind", SUBCLASSES)
def test_every_error_ends_with_a_listed_code_that_is_not_success(
    kind: type[FastersegError],
) -> None:
    assert kind.exit_code in EXIT_CODES
    assert kind.exit_code not in (0, 130)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("OutputError", 1),
        ("UsageError", 2),
        ("OutputExistsError", 2),
        ("ConfigError", 2),
        ("UnknownNameError", 2),
        ("MissingLatencyError", 2),
        ("SourceError", 3),
        ("EngineError", 4),
        ("EngineMismatchError", 4),
        ("DeviceUnavailableError", 4),
        ("MissingExtraError", 4),
        ("WeightsError", 4),
        ("ParityError", 5),
        ("PerformanceError", 6),
    ],
)
def test_kind_of_failure_decides_the_code(kind: str, code: int) -> None:
    assert getattr(errors, kind).exit_code == code


def test_every_code_but_success_and_interruption_has_an_error() -> None:
    assert {kind.exit_code for kind in SUBCLASSES} == set(EXIT_CODES) - {0, 130}
