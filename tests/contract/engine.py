"""What every engine owes its callers; a backend's test subclasses this and gives `open`."""

from __future__ import annotations

import numpy as np
import pytest

from fasterseg.errors import UsageError
from fasterseg.runtime.base import Engine
from fasterseg.types import Size
from tests.parity import street_like

SIZE = Size(96, 160)


class EngineContract:
    """Subclasses return an open engine of `fasterseg-camvid` at `SIZE`, batch 1, on the CPU."""

    def open(self) -> Engine:
        raise NotImplementedError

    def test_gives_uint8_ids_of_the_frames_size(self) -> None:
        engine = self.open()
        labels = engine.run(street_like(SIZE))
        assert labels.dtype == np.uint8
        assert labels.shape == (1, *SIZE)
        assert labels.max() < engine.spec.num_classes
        engine.close()

    def test_is_deterministic_and_depends_on_the_frame(self) -> None:
        engine = self.open()
        first = engine.run(street_like(SIZE, 0)).copy()
        other = engine.run(street_like(SIZE, 1)).copy()
        assert np.array_equal(engine.run(street_like(SIZE, 0)), first)
        assert not np.array_equal(first, other)
        engine.close()

    def test_leaves_the_callers_frames_alone(self) -> None:
        engine = self.open()
        frames = street_like(SIZE)
        before = frames.copy()
        engine.run(frames)
        assert np.array_equal(frames, before)
        engine.close()

    def test_says_what_it_is(self) -> None:
        engine = self.open()
        assert engine.device == "cpu"
        assert engine.spec.size == SIZE
        assert engine.spec.labels.name == "camvid"
        assert engine.tail
        engine.close()

    @pytest.mark.parametrize(
        ("frames", "message"),
        [
            (np.zeros((1, 96, 168, 3), np.uint8), "96x160"),
            (np.zeros((96, 160, 3), np.uint8), r"frames\[None\]"),
            (np.zeros((1, 96, 160, 3), np.float32), "uint8"),
            (np.zeros((1, 3, 96, 160), np.uint8), r"\(N, H, W, 3\)"),
            (np.zeros((2, 96, 160, 3), np.uint8), "batch 2"),
        ],
    )
    def test_frames_that_do_not_fit_are_refused_with_what_would(
        self, frames: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], message: str
    ) -> None:
        engine = self.open()
        with pytest.raises(UsageError, match=message):
            engine.run(frames)
        engine.close()

    def test_is_unusable_after_close(self) -> None:
        engine = self.open()
        engine.close()
        with pytest.raises(UsageError, match="closed"):
            engine.run(street_like(SIZE))
