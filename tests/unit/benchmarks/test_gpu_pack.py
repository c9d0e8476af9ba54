"""What is packed for a machine with a GPU, and that a damaged pack is noticed there."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fasterseg.datasets import dataset
from fasterseg.errors import SourceError
from fasterseg.runtime.model import resolve_model
from tests.tiny_data import COUNTS
from tests.unit.benchmarks.conftest import MakeRun


@pytest.fixture(scope="module")
def gpu_pack(scripts: None) -> Any:
    return importlib.import_module("gpu_pack")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures of different brightness; a folder is a clip, too."""
    folder = tmp_path_factory.mktemp("clip")
    for number in range(5):
        image = np.full((48, 64, 3), 40 * number, np.uint8)
        (folder / f"{number}.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())
    return folder


def packed(gpu_pack: Any, folder: Path, *arguments: str) -> int:
    code: int = gpu_pack.main(["--folder", str(folder), *arguments])
    return code


def test_a_pack_holds_pictures_labels_frames_and_models(
    gpu_pack: Any, camvid_root: Path, clip: Path, make_run: MakeRun, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = tmp_path / "gpu-pack"
    arguments = ["--camvid", str(camvid_root), "--clip", str(clip), "--frames", "3"]
    assert packed(gpu_pack, folder, *arguments, "--model", str(make_run())) == 0
    pack = gpu_pack.Pack(folder)
    spec = dataset("camvid")
    for split in ("val", "test"):
        pairs = spec.pairs(pack.camvid, split)
        assert len(pairs) == COUNTS[split]
        theirs = spec.pairs(camvid_root, split)
        np.testing.assert_array_equal(spec.read_label(pairs[1]), spec.read_label(theirs[1]))
    assert not (pack.camvid / "train.txt").exists()
    assert [int(frame.mean()) for frame in pack.frames()] == [0, 80, 160]
    (model,) = pack.models()
    assert resolve_model(str(model)).trained
    assert "MB" in capsys.readouterr().out.splitlines()[-1]


def test_a_missing_folder_names_the_command(
    gpu_pack: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert packed(gpu_pack, tmp_path / "pack", "--camvid", str(tmp_path / "nowhere")) != 0
    assert "make gpu-pack CAMVID=FOLDER" in capsys.readouterr().err
    assert not (tmp_path / "pack").exists()


def test_a_pack_too_large_to_carry_is_refused_and_the_old_one_stays(
    gpu_pack: Any, camvid_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "pack"
    assert packed(gpu_pack, folder, "--camvid", str(camvid_root)) == 0
    before = (folder / "manifest.json").read_bytes()
    code = packed(gpu_pack, folder, "--camvid", str(camvid_root), "--limit-mb", "0.001")
    assert code != 0
    assert "more than 0.001 MB" in capsys.readouterr().err
    assert (folder / "manifest.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pack"]


def test_a_folder_of_something_else_is_not_replaced(
    gpu_pack: Any, camvid_root: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "diary.txt").write_text("dear diary")
    assert packed(gpu_pack, folder, "--camvid", str(camvid_root)) != 0
    assert (folder / "diary.txt").read_text() == "dear diary"


def test_untrained_models_and_short_clips_are_refused(
    gpu_pack: Any, camvid_root: Path, clip: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    camvid = ["--camvid", str(camvid_root)]
    assert packed(gpu_pack, tmp_path / "a", *camvid, "--model", "fasterseg-student") != 0
    assert "a seed needs no packing" in capsys.readouterr().err
    assert packed(gpu_pack, tmp_path / "a", *camvid, "--clip", str(clip), "--frames", "9") != 0
    assert "has 5 frames, 9 are wanted" in capsys.readouterr().err


def test_missing_fixtures_are_named(
    gpu_pack: Any, camvid_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = packed(gpu_pack, tmp_path / "a", "--camvid", str(camvid_root), "--shared", str(tmp_path))
    assert code != 0
    assert gpu_pack.FIXTURES[0] in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_pack_is_noticed(
    gpu_pack: Any, camvid_root: Path, tmp_path: Path, damage: str
) -> None:
    folder = tmp_path / "pack"
    assert packed(gpu_pack, folder, "--camvid", str(camvid_root)) == 0
    name = next(iter(json.loads((folder / "manifest.json").read_text())["files"]))
    if damage == "changed":
        (folder / name).write_bytes(b"other")
    else:
        (folder / name).unlink()
    with pytest.raises(SourceError, match="make the pack again"):
        gpu_pack.Pack(folder)


def test_no_pack_is_an_error_that_names_the_command(gpu_pack: Any, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="make gpu-pack"):
        gpu_pack.Pack(tmp_path)
