from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fasterseg.errors import UsageError
from fasterseg.stream.rle import class_map, decode, encode, encode_classes
from tests.unit.stream.conftest import Image

SIZES = [(1, 1), (1, 9), (9, 1), (7, 5), (64, 96), (33, 200)]


def blobs(seed: int, height: int, width: int, cell: int, count: int = 2) -> Image:
    """Random cells of `count` ids."""
    coarse = np.random.default_rng(seed).integers(
        0, count, (height // cell + 1, width // cell + 1), np.uint8
    )
    return np.kron(coarse, np.ones((cell, cell), np.uint8))[:height, :width]


def test_counts_are_those_of_the_format_worked_out_by_hand() -> None:
    # Columns: 0 1 1 | 0 1 1 | 0 0 0 -> runs 1, 2, 1, 2, 3; the fourth (2) is written as 2 - 2 = 0,
    # the fifth (3) as 3 - 1 = 2.
    mask = np.array([[0, 0, 0], [1, 1, 0], [1, 1, 0]], np.uint8)
    assert encode(mask) == {"size": [3, 3], "counts": "12102"}


def test_long_runs_take_several_characters() -> None:
    # 40 = 8 + 1 * 32: the group 8 with the bit that says more (8 + 32 + 48 = 'X'), then 1.
    mask = np.zeros((1, 100), np.uint8)
    mask[0, 40:] = 1
    assert encode(mask)["counts"] == "X1" + "l1"
    # A last group with its highest bit set would read as negative: 16 needs a group more.
    assert encode(np.ones((4, 4), np.uint8))["counts"] == "0" + "`0"


def test_shorter_runs_are_negative_differences() -> None:
    # Runs 1, 9, 1, 2: the fourth is 2 - 9 = -7, in 5 bits 25, whose highest bit is the sign.
    mask = np.array([[0] + [1] * 9 + [0] + [1] * 2], np.uint8)
    assert encode(mask)["counts"] == "191" + chr(25 + 48)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("cell", [1, 3, 40])
def test_decoding_gives_the_mask_back(height: int, width: int, cell: int) -> None:
    for seed in range(5):
        mask = blobs(seed, height, width, cell)
        decoded = decode(encode(mask))
        assert decoded.dtype == np.uint8
        np.testing.assert_array_equal(decoded, mask)


@pytest.mark.parametrize("value", [0, 1])
def test_masks_of_one_value_are_kept(value: int) -> None:
    mask = np.full((6, 4), value, np.uint8)
    np.testing.assert_array_equal(decode(encode(mask)), mask)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_all_classes_at_once_equal_each_alone(height: int, width: int) -> None:
    ids = blobs(3, height, width, 2, 11)
    ids[0, 0] = 255
    encoded = encode_classes(ids, 11)
    assert list(encoded) == [index for index in range(11) if (ids == index).any()]
    for index, segmentation in encoded.items():
        assert segmentation == encode(ids == index)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_pycocotools_writes_the_same_and_reads_ours() -> None:
    coco = pytest.importorskip("pycocotools.mask")
    for seed, (height, width) in enumerate(SIZES * 4):
        for cell in (1, 2, 9, 60):
            mask = blobs(seed, height, width, cell)
            ours, theirs = encode(mask), coco.encode(np.asfortranarray(mask))
            assert ours["counts"].encode() == theirs["counts"]
            assert ours["size"] == list(theirs["size"])
            np.testing.assert_array_equal(coco.decode(ours), mask)
            np.testing.assert_array_equal(decode(theirs), mask)
            assert coco.area(ours) == mask.sum()


def test_a_frame_of_two_million_pixels_is_kept() -> None:
    mask = np.zeros((1024, 2048), np.uint8)
    mask[:, 1000:] = 1
    encoded = encode(mask)
    assert len(encoded["counts"]) < 12
    np.testing.assert_array_equal(decode(encoded), mask)


@pytest.mark.parametrize(
    "damaged",
    [
        {},
        {"size": [3, 3]},
        {"size": [3], "counts": "9"},
        {"size": "33", "counts": 9},
        {"size": [3, 3], "counts": ""},
        {"size": [3, 3], "counts": "8"},
        {"size": [3, 3], "counts": "X"},
        {"size": [3, 3], "counts": "9 "},
        {"size": [3, 3], "counts": "\x7f"},
        {"size": [3, 3], "counts": "ä"},
        {"size": [3, 3], "counts": "X" * 20 + "1"},
        {"size": [0, 3], "counts": "0"},
        {"size": [3, 3], "counts": "O:"},
        None,
    ],
)
def test_what_is_no_mask_is_refused(damaged: Any) -> None:
    with pytest.raises(UsageError, match=r"not a compressed COCO mask|do not fill|damaged"):
        decode(damaged)


@pytest.mark.parametrize(
    "damaged",
    [
        {},
        {"size": [3, 3], "classes": [{"id": 0}]},
        {"size": [3, 3], "classes": [{"id": 0, "segmentation": encode(np.ones((2, 2)))}]},
        [],
    ],
)
def test_what_is_no_line_is_refused(damaged: Any) -> None:
    with pytest.raises(UsageError, match="not a line of"):
        class_map(damaged)


def test_pixels_of_no_class_get_the_ignore_id() -> None:
    segmentation = encode(np.array([[1, 0], [0, 0]]))
    record = {"size": [2, 2], "classes": [{"id": 7, "segmentation": segmentation}]}
    assert class_map(record).tolist() == [[7, 255], [255, 255]]
    assert class_map(record, ignore_id=0).tolist() == [[7, 0], [0, 0]]
