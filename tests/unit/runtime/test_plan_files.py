"""Plans on disk: sidecar, damage, foreign headers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fasterseg.errors import EngineError, EngineMismatchError
from fasterseg.runtime.base import ParityVerdict
from fasterseg.runtime.plan_files import (
    BuildOptions,
    read_facts,
    read_plan,
    sidecar_path,
    split_header,
    with_parity,
    write_facts,
    write_plan,
)
from tests.plans import DATA, plan


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "x.engine"
    write_plan(path, plan())
    return path


def test_a_plan_comes_back_with_all_its_facts(tmp_path: Path) -> None:
    options = BuildOptions(
        "off", 64, 0, 5, True, "ampere-plus", ("sm_89",), ("1x1", "2x2", "3x3"), 4
    )
    written = plan(options=options)
    write_plan(tmp_path / "x.plan", written)
    read = read_plan(tmp_path / "x.plan")
    assert read.facts == written.facts
    assert read.data == DATA


def test_the_file_is_the_raw_plan(file: Path) -> None:
    assert file.read_bytes() == DATA


def test_a_verdict_that_was_not_taken_is_null_at_the_top_of_the_sidecar(file: Path) -> None:
    text = json.loads(sidecar_path(file).read_text())
    assert text["parity"] is None
    assert "parity" not in text["spec"]
    verdict = ParityVerdict("onnxruntime", 0.9995, 0.999, True)
    write_facts(file, with_parity(read_facts(file), verdict))
    assert json.loads(sidecar_path(file).read_text())["parity"]["agreement"] == 0.9995
    assert read_facts(file).spec.parity == verdict


def test_the_sidecar_lists_what_users_were_promised(file: Path) -> None:
    text = json.loads(sidecar_path(file).read_text())
    spec = text["spec"]
    assert {"schema", "version", "system", "cuda", "targets", "options", "created", "build_s",
            "onnx_sha256", "inputs", "outputs"} <= set(text)  # fmt: skip
    assert {"gpu", "arch", "runtime", "precision", "size", "batch", "plugins", "labels", "mean",
            "std", "fit", "channel_order", "source_sha256", "output"} <= set(spec)  # fmt: skip


def test_a_truncated_plan_is_told_by_its_size(file: Path) -> None:
    file.write_bytes(DATA[:-3])
    with pytest.raises(EngineError, match=f"damaged: {len(DATA) - 3} bytes, {len(DATA)} were"):
        read_plan(file)


def test_a_changed_plan_is_told_by_its_hash(file: Path) -> None:
    file.write_bytes(DATA[:-1] + b"?")
    with pytest.raises(EngineError, match=r"damaged: its SHA-256.*fasterseg build"):
        read_plan(file)


def test_a_missing_plan_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"does not exist.*fasterseg build"):
        read_plan(tmp_path / "no.engine")


def test_a_plan_without_its_sidecar_is_refused(file: Path) -> None:
    sidecar_path(file).unlink()
    with pytest.raises(EngineMismatchError, match=r"no description beside it \(x\.engine\.json\)"):
        read_facts(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "{", "cannot be read"),
        (lambda text: "[]", "no description"),
        (lambda text: "[" * 100_000, "cannot be read"),
        (lambda text: '{"schema": Infinity}', "no description"),
        (lambda text: json.dumps({**json.loads(text), "schema": 99}), "newer fasterseg"),
        (lambda text: json.dumps({**json.loads(text), "bytes": "many"}), "expected int"),
        (lambda text: json.dumps({**json.loads(text), "surprise": 1}), "unknown key 'surprise'"),
        (lambda text: text.replace('"backend"', '"backhand"'), "backhand"),
    ],
)
def test_a_damaged_sidecar_is_refused(file: Path, change: Any, message: str) -> None:
    sidecar_path(file).write_text(change(sidecar_path(file).read_text()))
    with pytest.raises(EngineMismatchError, match=message):
        read_facts(file)


def with_header(data: bytes, **header: Any) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(4, "little") + text + data


def test_a_length_prefixed_header_is_read_and_taken_off(file: Path) -> None:
    file.write_bytes(with_header(DATA, task="segment", imgsz=[640, 640]))
    assert read_plan(file).data == DATA


@pytest.mark.parametrize(
    "data",
    [b"", b"ab", DATA, b"\xff\xff\xff\x7f{", b"\x04\x00\x00\x00{no}rest", b"\x02\x00\x00\x00{"],
)
def test_what_only_looks_like_a_header_stays(data: bytes) -> None:
    assert split_header(data) == (None, data)


def test_a_foreign_engine_is_told_with_what_its_header_says(file: Path) -> None:
    file.write_bytes(with_header(DATA, task="segment", stride=32))
    sidecar_path(file).unlink()
    with pytest.raises(EngineMismatchError, match="task segment, stride 32"):
        read_facts(file)


def test_the_command_that_makes_it_again_is_whole() -> None:
    facts = plan().facts
    assert facts.rebuild() == (
        "fasterseg build fasterseg-camvid --engine tensorrt --size 64x96 --precision fp16"
    )
    free = replace(facts, spec=replace(facts.spec, size=None))
    assert "--size" not in free.rebuild()
