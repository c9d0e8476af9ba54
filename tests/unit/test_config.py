from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from fasterseg.config import from_mapping, load_toml, parse_json
from fasterseg.errors import ConfigError


@dataclass(frozen=True)
class Part:
    """A nested table."""

    rate: float


@dataclass(frozen=True)
class Settings:
    """One field of each supported type."""

    name: str
    count: int
    rate: float
    mode: Literal["fast", "slow"]
    part: Part
    parts: tuple[Part, ...] = ()
    pair: tuple[int, str] = (0, "")
    limit: int | None = None
    flag: bool = False
    ids: Mapping[str, int] = field(default_factory=dict)


REQUIRED: dict[str, Any] = {
    "name": "n",
    "count": 3,
    "rate": 0.5,
    "mode": "fast",
    "part": {"rate": 1.5},
}


def test_toml_becomes_the_dataclass(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(
        'name = "n"\ncount = 3\nrate = 2\nmode = "slow"\nflag = true\nlimit = 4\n'
        'pair = [1, "x"]\nparts = [{rate = 0.5}]\n[part]\nrate = 1.5\n[ids]\na = 7\n',
        encoding="utf-8",
    )
    settings = load_toml(path, Settings)
    assert settings == Settings(
        "n", 3, 2.0, "slow", Part(1.5), (Part(0.5),), (1, "x"), 4, True, {"a": 7}
    )
    assert isinstance(settings.rate, float)
    assert isinstance(settings.parts, tuple)


def test_defaults_fill_what_is_left_out() -> None:
    settings = from_mapping(REQUIRED, Settings, "test")
    assert (settings.parts, settings.limit, settings.flag) == ((), None, False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nmae": "x"}, "unknown key 'nmae'; did you mean 'name'"),
        ({"zzz": 1}, "Known: name, count"),
        ({"count": "3"}, "count: expected int, found '3'"),
        ({"count": 3.0}, "count: expected int"),
        ({"count": True}, "count: expected int"),
        ({"flag": 1}, "flag: expected bool"),
        ({"rate": True}, "rate: expected float"),
        ({"mode": "quick"}, "mode: 'quick' is not one of 'fast', 'slow'"),
        ({"part": 1}, "part: expected a table"),
        ({"part": {"rate": "x"}}, "part: rate: expected float"),
        ({"parts": {"rate": 1.0}}, "parts: expected a list"),
        ({"parts": [{"rate": 1.0}, {}]}, r"parts\[1\]: key 'rate' is missing"),
        ({"pair": [1]}, "pair: expected 2 values, found 1"),
        ({"limit": "x"}, "limit: expected int"),
        ({"ids": {"a": "x"}}, r"ids\.a: expected int"),
        ({"ids": [1]}, "ids: expected a table"),
        ({"rate": 10**400}, "rate: a number of 401 digits"),
    ],
)
def test_wrong_value_is_an_error_that_names_the_key(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_mapping({**REQUIRED, **change}, Settings, "test")


@pytest.mark.parametrize("key", sorted(REQUIRED))
def test_missing_key_is_an_error(key: str) -> None:
    data = {name: value for name, value in REQUIRED.items() if name != key}
    with pytest.raises(ConfigError, match=f"origin.json: key '{key}' is missing"):
        from_mapping(data, Settings, "origin.json")


def test_what_is_not_a_table_is_an_error() -> None:
    with pytest.raises(ConfigError, match="expected a table of keys, found list"):
        from_mapping([], Settings, "test")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("[" * 100_000, id="deep"),
        pytest.param('{"a":' * 100_000, id="deep objects"),
        "{",
        "",
    ],
)
def test_what_is_not_json_is_one_kind_of_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the parser's words
        parse_json(text)


def test_json_is_read_from_text_and_bytes() -> None:
    assert parse_json('{"a": [1, null]}') == parse_json(b'{"a": [1, null]}') == {"a": [1, None]}


@pytest.mark.parametrize(
    "content", [b"name = ", b"name = '\xff'", pytest.param(b"name = " + b"[" * 100_000, id="deep")]
)
def test_broken_file_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"broken\.toml is not TOML"):
        load_toml(path, Settings)


def test_absent_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*absent\.toml"):
        load_toml(tmp_path / "absent.toml", Settings)
