"""What every frame source does; a kind of source subclasses `SourceContract`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fasterseg.stream.sources import FrameSource, Kind, open_source
from fasterseg.stream.sources_options import SourceOptions


class SourceContract:
    """Tests of a source with `count` frames.

    A subclass sets `kind` and overrides the fixture `uri`.
    """

    kind: Kind
    count = 7

    @pytest.fixture
    def uri(self, tmp_path: Path) -> str:
        """Makes a source of `count` frames and returns its URI."""
        raise NotImplementedError

    def open(self, uri: str, **options: Any) -> FrameSource:
        """Opens a source; a subclass may add what its kind needs."""
        return open_source(uri, SourceOptions(**options))

    @pytest.fixture
    def source(self, uri: str) -> FrameSource:
        """The source, opened and limited to `count` (a camera never ends)."""
        return self.open(uri, limit=self.count)

    def test_describes_itself(self, source: FrameSource) -> None:
        assert source.kind == self.kind
        assert source.name
        assert source.stem
        assert source.live == (self.kind == "camera")
        assert not source.truncated
        assert source.lost_frames == 0
        assert source.warnings == []
        assert isinstance(source.notes, list)
        assert source.frame_count == self.count
        source.close()

    def test_frames_are_bgr_bytes_of_the_declared_size(self, source: FrameSource) -> None:
        for frame in source:
            assert frame.image.dtype == np.uint8
            assert frame.image.shape[2] == 3
            assert frame.image.flags.c_contiguous
            assert frame.size == source.size
            assert frame.decode_ms > 0
        source.close()

    def test_gives_every_frame_once_and_in_order(self, uri: str) -> None:
        source = self.open(uri, limit=self.count, drop="none")
        frames = list(source)
        source.close()
        assert [frame.index for frame in frames] == list(range(self.count))
        times = [frame.timestamp_s for frame in frames]
        assert times[0] == 0.0
        assert times == sorted(times)

    def test_stride_keeps_the_frames_own_indices(self, uri: str) -> None:
        limit = -(-self.count // 3)
        source = self.open(uri, stride=3, limit=limit, drop="none")
        indices = [frame.index for frame in source]
        source.close()
        assert indices == list(range(0, self.count, 3))
        assert source.frame_count == len(indices)

    def test_limit_ends_it_early(self, uri: str) -> None:
        source = self.open(uri, limit=1)
        assert source.frame_count == 1
        assert len(list(source)) == 1
        assert not source.truncated
        source.close()

    def test_closes_unread_half_read_and_twice(self, uri: str) -> None:
        unread = self.open(uri)
        unread.close()
        half = self.open(uri)
        assert next(iter(half)).index == 0
        half.close()
        half.close()
