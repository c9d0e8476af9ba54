from __future__ import annotations

import json
import sys

import pytest

from fasterseg.errors import MissingExtraError, UnknownNameError
from fasterseg.registry import EXTRA_OF_PACKAGE, resolve, unknown

REGISTRY = {"decoder": "json.decoder:JSONDecoder", "encoder": "json.encoder:JSONEncoder"}


def test_entry_resolves_to_the_object_it_names() -> None:
    assert resolve(REGISTRY, "codec", "decoder") is json.JSONDecoder


def test_unknown_name_lists_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown codec 'decodr'.*decoder, encoder.*Did"):
        resolve(REGISTRY, "codec", "decodr")


def test_unknown_name_without_a_near_one_suggests_nothing() -> None:
    assert "Did you mean" not in unknown("codec", "zzz", REGISTRY)


def test_missing_extra_names_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setitem(EXTRA_OF_PACKAGE, "absent_package", "openvino")
    with pytest.raises(MissingExtraError, match=r"pip install 'fasterseg\[openvino\]'"):
        resolve({"a": "absent_package.part:Name"}, "engine", "a")


def test_missing_package_that_no_extra_installs_is_not_disguised() -> None:
    with pytest.raises(ModuleNotFoundError, match="absent_package"):
        resolve({"a": "absent_package:Name"}, "engine", "a")
