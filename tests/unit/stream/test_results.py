from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from fasterseg.errors import OutputError, UsageError
from fasterseg.labels import CAMVID
from fasterseg.overlay import OverlayStyle, colorize, draw
from fasterseg.stream.results import SegmentationResult
from fasterseg.types import Frame, Size


@pytest.fixture
def result() -> SegmentationResult:
    """4x5 pixels: half Road, a quarter Sky, the rest Car but for one ignored pixel."""
    mask = np.array([[3] * 5, [3] * 5, [0] * 5, [8] * 4 + [255]], np.uint8)
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return SegmentationResult(mask, CAMVID, Frame(image, index=7, timestamp_s=0.28))


def test_result_tells_what_its_frame_was(result: SegmentationResult) -> None:
    assert (result.frame_index, result.timestamp_s) == (7, 0.28)
    assert result.size == Size(4, 5)


def test_pixels_are_counted_per_class_and_ignored_ones_belong_to_none(
    result: SegmentationResult,
) -> None:
    counts = result.pixel_counts()
    assert counts.shape == (11,)
    assert counts.tolist() == [5, 0, 0, 10, 0, 0, 0, 0, 4, 0, 0]
    fractions = result.class_fractions()
    assert list(fractions) == list(CAMVID.classes)
    assert fractions["Road"] == pytest.approx(0.5)
    assert sum(fractions.values()) == pytest.approx(19 / 20)


def test_overlay_is_the_palette_over_the_frame(result: SegmentationResult) -> None:
    np.testing.assert_array_equal(result.overlay(alpha=0.0), result.frame.image)
    np.testing.assert_array_equal(result.overlay(alpha=1.0), colorize(result.mask, CAMVID))


def test_overlay_may_have_contours_and_a_legend(result: SegmentationResult) -> None:
    style = OverlayStyle(0.3, contours=True, legend=True)
    drawn = result.overlay(0.3, contours=True, legend=True)
    np.testing.assert_array_equal(drawn, draw(result.frame.image, result.mask, CAMVID, style))
    assert drawn.shape[1] > 5
    with pytest.raises(UsageError, match="alpha is 2"):
        result.overlay(2)


def test_saved_file_may_carry_the_palette(result: SegmentationResult, tmp_path: Path) -> None:
    read = cv2.imread(str(result.save(tmp_path / "mask.png", indexed=True)), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(read, colorize(result.mask, CAMVID))


def test_saved_file_holds_the_ids_themselves(result: SegmentationResult, tmp_path: Path) -> None:
    written = result.save(tmp_path / "deep" / "%06d.png")
    assert written == tmp_path / "deep" / "000007.png"
    read = cv2.imread(str(written), cv2.IMREAD_UNCHANGED)
    assert read is not None
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, result.mask)


def test_saved_name_without_a_pattern_is_kept(result: SegmentationResult, tmp_path: Path) -> None:
    assert result.save(str(tmp_path / "mask.PNG")).name == "mask.PNG"


@pytest.mark.parametrize("name", ["mask.jpg", "mask", "%s%s.png", "%.png", "%06d-%06d.png"])
def test_name_that_cannot_hold_ids_is_refused(
    result: SegmentationResult, tmp_path: Path, name: str
) -> None:
    with pytest.raises(UsageError, match=r"\.png|number pattern"):
        result.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_place_that_cannot_be_written_is_an_output_error(
    result: SegmentationResult, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot create folder"):
        result.save(tmp_path / "file" / "mask.png")
