"""What every sink does; a format subclasses `SinkContract`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fasterseg.errors import OutputError
from fasterseg.labels import CAMVID
from fasterseg.stream.results import SegmentationResult
from fasterseg.stream.sinks import FrameSink
from fasterseg.types import Frame, Size
from tests.unit.stream.conftest import limited_file_size

SIZE = Size(64, 96)


def result(index: int, size: Size = SIZE) -> SegmentationResult:
    """A result with moving stripes of class ids."""
    rows = (np.arange(size.height)[:, None] + index * 8) // 16 % len(CAMVID)
    mask = np.broadcast_to(rows, size).astype(np.uint8)
    image = np.full((*size, 3), 40 + index, np.uint8)
    return SegmentationResult(mask, CAMVID, Frame(image, index, index / 25))


class SinkContract:
    """Tests of a sink; a subclass overrides `open`."""

    def open(self, path: Path) -> FrameSink:
        """The sink, writing to `path` (a name that is not there yet)."""
        raise NotImplementedError

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """Where to write; its folder is not there yet. A subclass may give it a suffix."""
        return tmp_path / "new" / "out"

    def test_writes_what_it_says_it_wrote(self, path: Path) -> None:
        sink = self.open(path)
        for index in range(3):
            sink.write(result(index))
        sink.close()
        assert sink.paths == [path]
        assert path.exists()

    def test_leaves_no_other_files_behind(self, path: Path) -> None:
        sink = self.open(path)
        sink.write(result(0))
        sink.close()
        assert list(path.parent.iterdir()) == [path]

    def test_writes_nothing_before_the_first_result(self, path: Path) -> None:
        sink = self.open(path)
        assert not path.parent.exists()
        sink.close()
        assert not path.parent.exists()
        assert sink.paths == []

    def test_closes_twice(self, path: Path) -> None:
        sink = self.open(path)
        sink.write(result(0))
        sink.close()
        sink.close()
        assert path.exists()

    def test_folder_that_cannot_be_made_is_an_output_error(self, path: Path) -> None:
        path.parent.write_text("a file where the folder should be")
        sink = self.open(path)
        with pytest.raises(OutputError, match="cannot"):
            self._write_and_close(sink)
        sink.close()

    def test_full_disk_is_an_output_error(self, path: Path) -> None:
        sink = self.open(path)
        with limited_file_size(10), pytest.raises(OutputError, match="cannot write"):
            self._write_and_close(sink)
        sink.close()

    def _write_and_close(self, sink: FrameSink) -> None:
        sink.write(result(0))
        sink.close()
