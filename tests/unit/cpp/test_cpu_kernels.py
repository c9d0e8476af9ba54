"""The CPU kernels through their door, every instruction set that this CPU has."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from fasterseg import native
from fasterseg.errors import EngineError
from fasterseg.native_library import ISA_VARIABLE, VARIABLE
from fasterseg.preprocess import MEAN, STD, normalize
from tests.unit.cpp.cpu_builds import OWN
from tests.unit.cpp.cpu_cases import CASES, Case, assert_labels, blended, eightfold, picture

ALPHAS = (0.0, 0.1, 1 / 3, 0.4, 0.45, 0.5, 0.7, 0.9, 1.0)


@pytest.fixture(params=[*OWN, "baseline"])
def isa(request: pytest.FixtureRequest, cpu_library: Path, monkeypatch: Any) -> str:
    """An instruction set, which the door is made to use; skips those that are not here."""
    monkeypatch.setenv(VARIABLE, str(cpu_library))
    monkeypatch.setenv(ISA_VARIABLE, request.param)
    try:
        return native.require().isa
    except EngineError as error:
        pytest.skip(str(error))


def labels_of(
    case: Case, logits: NDArray[np.float32], threads: int = 1, paint: native.Paint | None = None
) -> NDArray[np.uint8]:
    labels = np.full((case.batch, *case.out), 255, np.uint8)
    whole = case.full[0] // case.small[0]
    scaled = case.full == (whole * case.small[0], whole * case.small[1])
    scale = whole if scaled else None
    native.upsample_argmax(logits, labels, scale=scale, threads=threads, paint=paint)
    return labels


def by_numpy(case: Case, logits: NDArray[np.float32]) -> NDArray[np.uint8]:
    labels = np.full((case.batch, *case.full), 255, np.uint8)
    native.numpy_upsample_argmax(logits, labels, scale=None)
    return labels[:, : case.out[0], : case.out[1]]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_labels_are_exact_where_the_best_class_leads(isa: str, case: Case) -> None:
    assert_labels(labels_of(case, case.logits), case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_labels_do_not_depend_on_kernel_or_threads(isa: str, case: Case) -> None:
    for logits in (case.logits, case.ties):
        expected = by_numpy(case, logits)
        for threads in (1, 2, 7, 256):
            np.testing.assert_array_equal(labels_of(case, logits, threads), expected)


@pytest.mark.torch
@pytest.mark.parametrize("size", [(64, 128), (61, 203)])
def test_labels_are_those_of_torch(isa: str, size: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    case = eightfold(2, 19, *size)
    grown = torch.nn.functional.interpolate(
        torch.from_numpy(case.logits), scale_factor=8, mode="bilinear", align_corners=True
    )[..., : size[0], : size[1]]
    best = grown.topk(2, dim=1).values
    clear = (best[:, 0] - best[:, 1] > 1e-5).numpy()
    labels = labels_of(case, case.logits)
    assert (labels[clear] == grown.argmax(1).numpy()[clear]).all()
    assert clear.mean() > 0.999


def test_first_of_equal_classes_wins(isa: str) -> None:
    case = eightfold(1, 6, 48, 88)
    three = eightfold(1, 3, 48, 88).logits
    twins = np.concatenate([three[:, [1]], three[:, [0]], three, three[:, [2]]], axis=1)
    assert set(np.unique(labels_of(case, twins))) == {0, 1, 4}
    for value in (0.0, -0.0, -3.5, 1e30):
        assert (labels_of(case, np.full_like(twins, value)) == 0).all()


def test_nan_never_wins_and_nothing_leaves_the_classes(isa: str) -> None:
    case = eightfold(1, 5, 40, 72)
    logits = case.logits
    without = logits[:, [0, 1, 3, 4]]
    logits[:, 2] = np.nan
    four = labels_of(eightfold(1, 4, 40, 72), np.ascontiguousarray(without))
    np.testing.assert_array_equal(labels_of(case, logits), np.array([0, 1, 3, 4], np.uint8)[four])
    assert (labels_of(case, np.full_like(logits, np.nan)) == 0).all()
    assert (labels_of(case, np.full_like(logits, -np.inf)) == 0).all()
    logits[:, 3, 2, 4] = np.inf
    logits[:, 1, 1, 1] = -np.inf
    assert labels_of(case, logits).max() < 5


def test_extreme_logits_of_one_corner_do_not_reach_the_others(isa: str) -> None:
    logits = np.zeros((1, 2, 1, 2), np.float32)
    logits[0, 0] = [[-1e9, 1.5]]
    logits[0, 1] = [[0, 1.25]]
    labels = labels_of(Case(1, 2, (1, 2), (1, 9), (1, 9)), logits)
    assert labels[0, 0].tolist() == [1] * 8 + [0]


def test_nothing_is_written_beside_the_labels(isa: str) -> None:
    for case in (eightfold(2, 3, 13, 29), eightfold(2, 3, 64, 61)):
        size = case.batch * case.out[0] * case.out[1]
        room = np.full(size + 200, 77, np.uint8)
        labels = room[100 : 100 + size].reshape(case.batch, *case.out)
        native.upsample_argmax(case.logits, labels, threads=2)
        assert (room[:100] == 77).all()
        assert (room[-100:] == 77).all()
        assert (labels < 3).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_paint_is_the_blend_of_the_labels(isa: str, threads: int) -> None:
    case = eightfold(2, 9, 37, 61)
    frames = np.stack([picture(37, 61, seed)[0] for seed in (0, 1)])
    palette = picture(1, 1)[2]
    painted, colours = np.zeros_like(frames), np.zeros_like(frames)
    labels = labels_of(case, case.logits, threads, native.Paint(palette, painted, frames, 0.3))
    np.testing.assert_array_equal(painted, blended(frames, labels, palette, 0.3))
    again = labels_of(case, case.logits, threads, native.Paint(palette, colours))
    np.testing.assert_array_equal(again, labels)
    np.testing.assert_array_equal(colours, palette[labels])


@pytest.mark.parametrize("alpha", ALPHAS)
def test_blend_of_every_byte_with_every_colour_is_opencvs(isa: str, alpha: float) -> None:
    column = np.arange(256, dtype=np.uint8)
    palette = np.stack([column, column[::-1], np.roll(column, 77)], axis=1)
    palette = np.ascontiguousarray(palette)
    labels = np.ascontiguousarray(np.broadcast_to(column, (256, 256)))
    frame = np.ascontiguousarray(np.broadcast_to(column[:, None, None], (256, 256, 3)))
    out = np.zeros_like(frame)
    native.blend(frame, labels, palette, alpha, out)
    np.testing.assert_array_equal(out, blended(frame, labels, palette, alpha))
    expected = cv2.addWeighted(frame, 1.0 - alpha, palette[labels], alpha, 0.0)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("size", [(1, 1), (3, 85), (5, 256), (7, 257), (1, 1000), (300, 3)])
def test_blend_at_odd_sizes_in_place_and_by_threads(isa: str, size: tuple[int, int]) -> None:
    frame, labels, palette = picture(*size)
    expected = blended(frame, labels, palette, 0.4)
    for threads in (1, 2, 5):
        inside = frame.copy()
        native.blend(inside, labels, palette, 0.4, inside, threads=threads)
        np.testing.assert_array_equal(inside, expected)
    native.blend(None, labels, palette, 0.4, frame, threads=2)
    np.testing.assert_array_equal(frame, palette[labels])


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 3, 5), (1, 16, 17), (3, 4, 6), (2, 33, 61)])
def test_normalisation_has_the_bits_of_the_reference(isa: str, size: tuple[int, ...]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = normalize(frames)
    for threads in (1, 2, 5):
        out = np.full_like(expected, np.nan)
        native.normalize_bgr(frames, MEAN, STD, out, threads=threads)
        np.testing.assert_array_equal(out.view(np.uint32), expected.view(np.uint32))


def test_normalisation_is_exact_where_the_mean_cancels_a_value(isa: str) -> None:
    values = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 4, 64, 3)
    mean, std = (7 / 255, 8 / 255, 0.3), (0.229, 0.225, 1e-3)
    out = np.full((1, 3, 4, 64), np.nan, np.float32)
    native.normalize_bgr(values, mean, std, out)
    rgb = (values[..., ::-1].astype(np.float64) / 255 - mean) / std
    expected = rgb.transpose(0, 3, 1, 2).astype(np.float32)
    assert (expected == 0).any()
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize(
    ("function", "values", "result"),
    [
        ("upsample_argmax", {}, 0),
        ("upsample_argmax", {"logits": None}, -1),
        ("upsample_argmax", {"labels": None}, -1),
        ("upsample_argmax", {"overlay": 1}, -1),
        ("upsample_argmax", {"batch": 0}, -2),
        ("upsample_argmax", {"width": 0}, -2),
        ("upsample_argmax", {"out_height": 3}, -2),
        ("upsample_argmax", {"full_width": 65536}, -2),
        ("upsample_argmax", {"threads": 0}, -2),
        ("upsample_argmax", {"threads": 257}, -2),
        ("upsample_argmax", {"classes": 128}, -3),
        ("upsample_argmax", {"isa": 99}, -4),
        ("upsample_argmax", {"isa": -1}, -4),
    ],
)
def test_library_refuses_what_it_cannot_do(
    cpu_library: Path, function: str, values: dict[str, Any], result: int
) -> None:
    library = ctypes.CDLL(str(cpu_library))
    room = np.zeros(16, np.float32)
    arguments = native._UpsampleArgmax(
        *(room.ctypes.data, room.ctypes.data + 32, 1, 2, 2, 2, 2, 2, 2, 2),
        *(library.fasterseg_cpu_isa(None), 1),
    )
    for name, value in values.items():
        setattr(arguments, name, value)
    assert getattr(library, f"fasterseg_cpu_{function}")(ctypes.byref(arguments)) == result
    library.fasterseg_cpu_message.restype = ctypes.c_char_p
    message = library.fasterseg_cpu_message(result)
    assert message not in (b"", b"unknown result")
