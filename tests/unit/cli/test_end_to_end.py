from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fasterseg.cli.end_to_end import filming
from fasterseg.errors import SourceError, UsageError
from fasterseg.types import STAGES, Size
from tests.media import write_clip
from tests.unit.bench.test_engines import FakeEngine


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", 6, Size(64, 96))


@pytest.mark.parametrize("output", ["overlay", "classmap", "none"])
def test_a_run_goes_from_the_video_to_what_is_written(clip: Path, output: str) -> None:
    engine = FakeEngine()
    found = filming(str(clip), output, None)(engine)
    assert (found.source, found.source_size, found.output) == ("clip.mp4", "64x96", output)
    assert found.frames == engine.calls == 6
    assert found.fps == pytest.approx(6 / found.seconds)
    assert list(found.stages) == list(STAGES)
    assert all(stats.count == 6 for stats in found.stages.values())


def test_the_engine_stays_open_and_nothing_is_left_behind(clip: Path) -> None:
    engine = FakeEngine()
    filming(str(clip), "overlay", 2)(engine)
    assert not engine.closed
    assert engine.calls == 2
    assert [path.name for path in clip.parent.iterdir()] == ["clip.mp4"]


def test_the_slowest_thread_is_told(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine()
    run = engine.run

    def slow(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        time.sleep(0.03)
        return run(frames)

    monkeypatch.setattr(engine, "run", slow)
    assert filming(str(clip), "none", None)(engine).bound_by == "engine"


def test_a_wrong_output_or_video_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="overlay, classmap, none"):
        filming(str(tmp_path / "clip.mp4"), "mp4", None)
    with pytest.raises(SourceError):
        filming(str(tmp_path / "clip.mp4"), "none", None)
