"""A drive through a street that does not exist, with the class of every pixel."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from fasterseg.errors import UsageError
from fasterseg.preprocess import MINIMUM_SIDE
from fasterseg.streets.blocks import BLOCK_M, Block, make_block
from fasterseg.streets.camera import Camera, Ride
from fasterseg.streets.canvas import Canvas
from fasterseg.streets.facades import Builder
from fasterseg.streets.foliage import Foliage
from fasterseg.streets.ground import Ground
from fasterseg.streets.houses import Lots
from fasterseg.streets.items import Item, Panel, Sprite, paint
from fasterseg.streets.kit import Kit, Outline
from fasterseg.streets.rng import generator
from fasterseg.streets.sky import Sky
from fasterseg.streets.style import draw_style
from fasterseg.streets.texture import Bytes
from fasterseg.streets.traffic import Traffic
from fasterseg.types import Size

DEFAULT_SIZE: Final = Size(360, 480)

_HOUSES_SEEN_M = 260.0
_SMALL_SEEN_M = 150.0
_FENCES_SEEN_M = 110.0
_BUSHES_SEEN_M = 70.0
_GRAIN_PX = 320
_GRAIN_SPARE_PX = 61
_BLOCKS_KEPT = 14


class StreetScene:
    """One drive through one street.

    Everything follows from the seed: the same seed, size and frame rate give the same bytes,
    whatever was rendered before. Frames can be asked for in any order, without end, in constant
    memory.

    Args:
        seed: which street, 0 or more.
        size: height and width of the frames, each at least 64 pixels.
        fps: frames per second; sets how far things move from frame to frame.

    Raises:
        UsageError: a negative seed, a side below 64 pixels, or a frame rate that is not positive.
    """

    def __init__(self, seed: int, size: Size = DEFAULT_SIZE, fps: float = 15.0) -> None:
        _check(seed, size, fps)
        self.seed = seed
        self.size = Size(*size)
        self.fps = fps
        self.style = draw_style(seed)
        detail = min(2.2, max(0.5, math.sqrt(self.size.pixels / (360 * 640))))
        light = self.style.light
        kit = Kit(
            self.style,
            Builder(seed, light, 21 * detail),
            Foliage(seed, light, self.style.autumn, detail),
        )
        lots = Lots(kit, 21 * detail)
        self._ride = Ride(self.style, self.size)
        self._traffic = Traffic(kit, self._ride)
        self._sky = Sky(self.style)
        self._ground = Ground(self.style)
        self._block = lru_cache(maxsize=_BLOCKS_KEPT)(lambda index: make_block(kit, lots, index))
        self._tone = _tone_curve(light.exposure, light.gamma)
        self._grain = _grain(seed, light.noise, self.size)

    def frame(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Render one frame.

        Args:
            index: 0 or more; frame `index` is taken at `index / fps` seconds.

        Returns:
            The picture, (H, W, 3) uint8 BGR, and the class of every pixel, (H, W) uint8: ids of
            `fasterseg.labels.CAMVID`, none of them ignored.

        Raises:
            UsageError: a negative index.
        """
        if index < 0:
            raise UsageError(f"frame {index} is before the start; frames count from 0")
        time_s = index / self.fps
        camera = self._ride.camera(time_s)
        canvas = Canvas(self.size, self.style.light.haze)
        blocks = self._blocks(camera)
        moving = self._traffic.at(time_s)
        near = [block.pile for block in blocks if block.index * BLOCK_M < camera.s + 120]
        self._sky.paint(canvas, camera)
        self._ground.paint(
            canvas, camera, blocks,
            _near(camera, [o for pile in (*near, moving) for o in pile.shadows]),
            _near(camera, [o for pile in (*near, moving) for o in pile.contacts]),
        )  # fmt: skip
        items = [i for block in blocks for i in block.pile.items if _in_reach(camera, i)]
        paint(canvas, camera, self.style.light, items + moving.items)
        return self._exposed(canvas.image, index), canvas.labels

    def _blocks(self, camera: Camera) -> list[Block]:
        first = math.floor((camera.s - 4.0) / BLOCK_M)
        last = math.floor((camera.s + _HOUSES_SEEN_M) / BLOCK_M)
        return [self._block(index) for index in range(first, last + 1)]

    def _exposed(self, image: Bytes, index: int) -> Bytes:
        """What lens and sensor make of the picture."""
        sigma = 0.42 * max(1.0, self.size.height / 720)
        soft = cv2.GaussianBlur(image, (3, 3), sigma)
        toned = cv2.LUT(soft, self._tone)
        rng = generator(self.seed, "grain", index)
        top, left = (int(n) for n in rng.integers(0, _GRAIN_SPARE_PX, 2))
        height, width = self.size
        grain = self._grain[top : top + height, left : left + width]
        return np.asarray(cv2.addWeighted(toned, 1.0, grain, 1.0, -128.0), np.uint8)


def _check(seed: int, size: Size, fps: float) -> None:
    if seed < 0:
        raise UsageError(f"seed {seed} is negative; take 0 or more")
    if min(size) < MINIMUM_SIDE:
        raise UsageError(
            f"street scenes of {size[0]}x{size[1]} are too small; "
            f"each side needs {MINIMUM_SIDE} pixels or more"
        )
    if not (fps > 0 and math.isfinite(fps)):
        raise UsageError(f"a frame rate of {fps} cannot be; take a positive number, such as 15")


def _in_reach(camera: Camera, item: Item) -> bool:
    ahead = item.depth_m - camera.s
    if isinstance(item, Panel):
        return ahead < (_HOUSES_SEEN_M if item.near[0, 1] > 2.5 else _FENCES_SEEN_M)
    if isinstance(item, Sprite):
        # Of far plants only those that rise above the cars and hedges show.
        return 0.0 < ahead < (_HOUSES_SEEN_M if item.height_m > 2.5 else _BUSHES_SEEN_M)
    return 0.0 < ahead < _SMALL_SEEN_M


def _near(camera: Camera, outlines: list[Outline]) -> list[Outline]:
    return [
        o for o in outlines if o[:, 1].max() > camera.s and o[:, 1].min() < camera.s + 90
    ]  # fmt: skip


def _tone_curve(exposure: float, gamma: float) -> Bytes:
    levels = np.arange(256) / 255 * exposure
    return np.clip(255 * np.clip(levels, 0, 1) ** gamma, 0, 255).astype(np.uint8)


def _grain(seed: int, noise: float, size: Size) -> Bytes:
    """Sensor noise around 128, somewhat larger than a frame; frames take changing windows."""
    rng = generator(seed, "sensor")
    values = rng.normal(128, noise, (_GRAIN_PX, _GRAIN_PX, 3))
    tile = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    height, width = size.height + _GRAIN_SPARE_PX, size.width + _GRAIN_SPARE_PX
    repeats = (-(-height // _GRAIN_PX), -(-width // _GRAIN_PX), 1)
    return np.tile(tile, repeats)[:height, :width]


def images(
    seed: int, count: int, size: Size = DEFAULT_SIZE
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Unrelated pictures for data sets: each from another street.

    Args:
        seed: which pictures, 0 or more.
        count: how many.
        size: height and width, each at least 64 pixels.

    Yields:
        Picture and classes, as `StreetScene.frame` returns them.

    Raises:
        UsageError: as for `StreetScene`, or a negative count.
    """
    _check(seed, size, 1.0)
    if count < 0:
        raise UsageError(f"a count of images of {count} cannot be; take 0 or more")
    for number in range(count):
        rng = generator(seed, "image", number)
        yield StreetScene(int(rng.integers(2**62)), size).frame(int(rng.integers(0, 3000)))
