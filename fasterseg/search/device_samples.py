"""Training samples made where the network is: pictures lie there, crops are cut in batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fasterseg.cache import byte_text
from fasterseg.errors import UsageError
from fasterseg.search.augment import GREY_BGR, OUTSIDE_BGR, SPACING, Bytes, Parameters
from fasterseg.types import Size

if TYPE_CHECKING:
    from fasterseg.search.data import Stock

HOST_BYTES: Final = 2 << 30
"""What pictures may fill where the device is the processor itself."""

DEVICE_SHARE: Final = 0.5
"""Share of a GPU's free memory that pictures may fill; the rest is left to training."""

_AHEAD: Final = 4
"""Batches whose parameters are drawn ahead."""


class DeviceSamples:
    """The same crops as `Samples`, cut on the device from pictures that stay there.

    They follow from the same draws, so a run may change from one kind to the other; pixels differ
    by the rounding of the two implementations.

    Args:
        stock: the whole pictures.
        device: "cpu" or "cuda".
        on_note: gets a line before the pictures are loaded.

    Attributes:
        stock: the whole pictures, as they are read.

    Raises:
        SourceError: a picture cannot be read.
        UsageError: the pictures differ in size, or do not fit.
    """

    def __init__(
        self,
        stock: Stock,
        device: str = "cpu",
        on_note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.stock = stock
        size, count = self.stock.size, len(self.stock)
        needed = 4 * size.pixels * count
        if needed > (room := room_on(device)):
            raise UsageError(
                f"{count} pictures of {size} take {byte_text(needed)} on the device, of which "
                f'{byte_text(room)} may be used; set augment_on = "host"'
            )
        rendered = ", some of them rendered now unless the cache has them"
        more = rendered if count > len(self.stock.pairs) else ""
        on_note(f"loading {count} pictures, {byte_text(needed)}, to {device}{more}")
        self._pictures = torch.empty((count, *size, 3), dtype=torch.uint8, device=device)
        self._labels = torch.empty((count, *size), dtype=torch.uint8, device=device)
        # Windows are chosen by their labels, on the host; where there is no choice none are read.
        blank = np.broadcast_to(np.uint8(0), size)
        self._maps: list[Bytes] = [blank] * count
        self._load()

    @property
    def shares(self) -> NDArray[np.float64]:
        """(C,) share of each class among the labelled pixels of the train split."""
        return self.stock.shares

    @property
    def count(self) -> int:
        """Pairs of the train split."""
        return len(self.stock.pairs)

    def _load(self) -> None:
        pool = ThreadPoolExecutor(self.stock.settings.workers, thread_name_prefix="pictures")
        try:
            for done in [pool.submit(self._load_one, i) for i in range(len(self.stock))]:
                done.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _load_one(self, index: int) -> None:
        image, labels = self.stock.read(index)
        if labels.shape != self.stock.size:
            name, first = self.stock.pairs[index].name, self.stock.pairs[0].name
            raise UsageError(
                f"{name} is {Size(*labels.shape)}, {first} is {self.stock.size} (height x width); "
                'pictures on the device must be of one size: set augment_on = "host"'
            )
        self._pictures[index].copy_(torch.from_numpy(image))
        self._labels[index].copy_(torch.from_numpy(labels))
        if self.stock.settings.augment.candidates > 1:
            self._maps[index] = labels

    def batches(
        self, first: int = 0, rank: int = 0, world: int = 1
    ) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Batches from sample `first` on, without end; see `Stock.parts`.

        Only the few numbers that were drawn travel to the device, and nothing waits for it.

        Yields:
            (N, H, W, 3) uint8 BGR and (N, H, W) int64 train ids on the device, N = batch / world.
        """
        augment = self.stock.augment
        numbers = self.stock.parts(first, rank, world)
        pending: deque[Future[NDArray[np.float64]]] = deque()
        pool = ThreadPoolExecutor(1, thread_name_prefix="draws")
        try:
            while True:
                while len(pending) < _AHEAD:
                    pending.append(pool.submit(self._draw, next(numbers)))
                drawn = self._upload(pending.popleft().result())
                yield cut(self._pictures, self._labels, drawn, augment.crop, augment.ignore_id)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _draw(self, numbers: range) -> NDArray[np.float64]:
        rows = []
        for number in numbers:
            index, rng = self.stock.draw(number)
            rows.append(packed(index, self.stock.augment.draw(self._maps[index], rng), self._width))
        return np.array(rows)

    @property
    def _width(self) -> int:
        return self.stock.augment.crop.width

    def _upload(self, rows: NDArray[np.float64]) -> Tensor:
        drawn = torch.from_numpy(rows)
        if self._pictures.is_cuda:
            # From pinned memory the copy is queued; from any other the program would wait for it.
            drawn = drawn.pin_memory()
        return drawn.to(self._pictures.device, non_blocking=True)


def room_on(device: str) -> int:
    """Bytes of a device that pictures may fill."""
    if torch.device(device).type == "cuda":
        return int(torch.cuda.mem_get_info()[0] * DEVICE_SHARE)
    return HOST_BYTES


def packed(index: int, drawn: Parameters, crop_width: int) -> list[float]:
    """A crop as the row of numbers that `cut` reads; `index` says which picture it is cut from."""
    colour = (drawn.brightness, drawn.contrast, drawn.gamma, drawn.saturation, *drawn.tint)
    return [index, *drawn.rows(), *drawn.columns(crop_width), *colour]


def cut(
    pictures: Tensor, labels: Tensor, drawn: Tensor, crop: Size, ignore_id: int
) -> tuple[Tensor, Tensor]:
    """`Augment.apply` for a whole batch, in operations that never wait for the device.

    Args:
        pictures: (P, h, w, 3) uint8 BGR.
        labels: (P, h, w) uint8 train ids.
        drawn: (N, 12) float64 on the same device; rows as `packed` makes them.
        crop: height and width of what comes out.
        ignore_id: label of what lies outside the pictures.

    Returns:
        (N, H, W, 3) uint8 BGR and (N, H, W) int64.
    """
    index = drawn[:, 0].long()[:, None, None]
    rows = _positions(drawn[:, 1], drawn[:, 2], crop.height)
    columns = _positions(drawn[:, 3], drawn[:, 4], crop.width)
    levels = _blended(pictures, index, rows, columns)
    ids = _nearest(labels, index, rows, columns, ignore_id)
    return _recoloured(levels, drawn[:, 5:]), ids


def _positions(step: Tensor, start: Tensor, count: int) -> Tensor:
    """(N, count) float64 rows or columns of the pictures that those of the crops lie at."""
    steps = torch.arange(count, dtype=torch.float64, device=step.device)
    return step[:, None] * steps + start[:, None]


def _taps(positions: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Both neighbours of every position along an axis.

    Returns:
        (2, N, count) int64 places, moved inside the picture, and (2, N, count) float32 shares in
        the blend, 0 for what lies outside.
    """
    low = positions.floor()
    share = positions - low
    at, shares = torch.stack([low, low + 1]), torch.stack([1 - share, share])
    return at.clamp(0, side - 1).long(), (shares * _inside(at, side)).float()


def _inside(at: Tensor, side: int) -> Tensor:
    return (at >= 0) & (at < side)


def _blended(pictures: Tensor, index: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(N, H, W, 3) float32 whole levels, bilinear; what is outside has its own colour."""
    row_at, row_share = _taps(rows, pictures.shape[1])
    column_at, column_share = _taps(columns, pictures.shape[2])
    outside, _ = _constants(pictures.device)
    levels = (1 - _outer(row_share.sum(0), column_share.sum(0))) * outside
    for row, across in zip(row_at, row_share, strict=True):
        for column, down in zip(column_at, column_share, strict=True):
            pixels = pictures[index, row[:, :, None], column[:, None, :]]
            levels += _outer(across, down) * pixels
    return levels.round_()


def _outer(rows: Tensor, columns: Tensor) -> Tensor:
    """(N, H), (N, W) -> their products (N, H, W, 1)."""
    return (rows[:, :, None] * columns[:, None, :]).unsqueeze(3)


def _nearest(
    labels: Tensor, index: Tensor, rows: Tensor, columns: Tensor, ignore_id: int
) -> Tensor:
    """(N, H, W) int64 train ids, `ignore_id` outside."""
    (_, height, width), row, column = labels.shape, (rows + 0.5).floor(), (columns + 0.5).floor()
    inside = _inside(row, height)[:, :, None] & _inside(column, width)[:, None, :]
    row, column = row.clamp(0, height - 1).long(), column.clamp(0, width - 1).long()
    ids = labels[index, row[:, :, None], column[:, None, :]].long()
    return ids.masked_fill_(~inside, ignore_id)


def _recoloured(levels: Tensor, colour: Tensor) -> Tensor:
    """(N, H, W, 3) float32 whole levels, (N, 7) float64 drawn -> (N, H, W, 3) uint8."""
    brightness, contrast, gamma, saturation = colour[:, :4, None, None].unbind(1)
    tint = colour[:, None, 4:]
    middle = levels[:, ::SPACING, ::SPACING].double().mean((1, 2, 3))[:, None, None]
    middle = middle / 255 * brightness
    ramp = torch.linspace(0, 1, 256, dtype=torch.float64, device=levels.device)[None, :, None]
    tones = ramp**gamma * brightness * tint
    curve = (((tones - middle) * contrast + middle).clamp(0, 1) * 255).round().float()
    toned = curve.gather(1, levels.long().flatten(1, 2))
    _, weights = _constants(levels.device)
    grey = (toned * weights).sum(2, keepdim=True).round()
    mixed = grey + (toned - grey) * saturation.float()
    return mixed.round_().clamp_(0, 255).to(torch.uint8).view(levels.shape)


@cache
def _constants(device: torch.device) -> tuple[Tensor, Tensor]:
    """Colour of the outside and weights of grey, (3,) each; made once: a copy to a GPU waits."""
    return torch.tensor(OUTSIDE_BGR, device=device).float(), torch.tensor(GREY_BGR, device=device)
