from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fasterseg.errors import OutputError, WeightsError  # noqa: E402
from fasterseg.search import checkpoint  # noqa: E402

pytestmark = pytest.mark.torch


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    plain = {"step": 3, "groups": [{"lr": 0.1}], "none": None}
    path = checkpoint.save(tmp_path, 3, {**plain, "weights": {"a": torch.arange(4.0)}})
    loaded = checkpoint.load(path)
    assert torch.equal(loaded.pop("weights")["a"], torch.arange(4.0))
    assert loaded == plain


def test_the_two_latest_are_kept(tmp_path: Path) -> None:
    for step in (1, 20, 300):
        checkpoint.save(tmp_path, step, {"step": step})
    assert [checkpoint.load(path)["step"] for path in checkpoint.found(tmp_path)] == [20, 300]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_a_damaged_file_is_refused_and_the_one_before_named(tmp_path: Path, damage: str) -> None:
    good = checkpoint.save(tmp_path, 1, {"weights": torch.zeros(100)})
    bad = checkpoint.save(tmp_path, 2, {"weights": torch.zeros(100)})
    data = bytearray(bad.read_bytes())
    data[-50] ^= 1
    bad.write_bytes(data if damage == "flip" else data[:-20])
    with pytest.raises(WeightsError, match=f"damaged.*Delete it to go on from {good.name}"):
        checkpoint.load(bad)
    assert checkpoint.load(good)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "step-00000001.ckpt"
    torch.save({"step": 1}, path)
    with pytest.raises(WeightsError, match="not a checkpoint"):
        checkpoint.load(path)
    with pytest.raises(WeightsError, match="cannot read"):
        checkpoint.load(tmp_path / "absent.ckpt")


def test_a_write_that_fails_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path, 1, {"step": 1})

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OutputError, match="No space left"):
        checkpoint.save(tmp_path, 2, {"step": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001.ckpt"]
    assert checkpoint.load(checkpoint.found(tmp_path)[-1]) == {"step": 1}


def test_a_killed_write_leaves_nothing_that_looks_like_a_checkpoint(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, {"step": 1})
    (tmp_path / ".step-00000002.ckpt.1a2b3c4d.tmp").write_bytes(b"half")
    assert [path.name for path in checkpoint.found(tmp_path)] == ["step-00000001.ckpt"]


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002


def test_every_random_generator_goes_on_where_it_was(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 1, checkpoint.random_states())
    expected = [draw() for _ in range(3)]
    checkpoint.restore_random_states(checkpoint.load(path))
    assert [draw() for _ in range(3)] == expected
