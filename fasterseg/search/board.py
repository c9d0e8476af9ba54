"""A run in TensorBoard: the journal's records under fixed tags, and pictures of what it sees."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from fasterseg.datasets import DatasetSpec, Pair
from fasterseg.errors import OutputError
from fasterseg.labels import LabelSet
from fasterseg.nn.network import Network
from fasterseg.overlay import colorize
from fasterseg.search.data import read_pair, to_input

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Bytes = NDArray[np.uint8]

FOLDER: Final = "tensorboard"
"""Folder of a run that TensorBoard is pointed at."""

MISSING: Final = (
    "no TensorBoard log: the tensorboard package is not installed. The figures are in log.jsonl "
    "all the same. Add it: pip install tensorboard"
)

_TAGS: Final[Mapping[str, str]] = {
    "images_per_s": "speed/images_per_s",
    "latency_ms": "latency/expected_ms",
    "lr": "lr",
    "multiplier": "latency/multiplier",
}
_NOT_SHOWN: Final = frozenset({"step", "images", "seconds", "grad_norm"})


def available() -> bool:
    """Whether there is a TensorBoard to write for; training goes on without."""
    return importlib.util.find_spec("tensorboard") is not None


class Board:
    """Writes event files; hears of records as a listener of the `Journal`.

    Tags: `loss/total`, `loss/<term>`, `lr`, `speed/images_per_s`, `miou/val`, `miou/<class>` (in
    percent) and `panel/<n>` (input, truth, prediction, side by side). A co-search adds
    `miou/8` to `miou/16_32`, `teacher_miou/...`, `gap/...`, `arch/entropy`, `arch/margin_student`,
    `latency/predicted_ms` (derived), `latency/expected_ms` (of the mixture) and the histograms
    `alpha/<network>`, `beta/<network>`, `ratio/<network>`.

    Args:
        folder: of the run; event files go into its folder `tensorboard`.
        labels: names and colours of the classes.
    """

    def __init__(self, folder: Path, labels: LabelSet) -> None:
        self.folder = folder / FOLDER
        self.labels = labels
        self._purge_from: int | None = None
        self._open: SummaryWriter | None = None

    def write(self, record: dict[str, Any]) -> None:
        """Show a record of the journal: losses and speed, or a score; others are passed over.

        Raises:
            OutputError: it cannot be written.
        """
        if "val" in record:
            self.score(record)
        elif "entropy" in record:
            self.epoch(record)
        elif "total" in record:
            self.progress(record)

    def progress(self, record: Mapping[str, Any]) -> None:
        """Show losses, learning rate and speed.

        Args:
            record: "step" and the means since the last one, by name.

        Raises:
            OutputError: it cannot be written.
        """
        shown = {
            _TAGS.get(name, f"loss/{name}"): value
            for name, value in record.items()
            if name not in _NOT_SHOWN
        }
        self._scalars(shown, record["step"])

    def score(self, record: Mapping[str, Any]) -> None:
        """Show a score of the averaged weights.

        Args:
            record: "step" and "val" with "miou" and "per_class_iou" in percent; None is absent.

        Raises:
            OutputError: it cannot be written.
        """
        val = record["val"]
        classes = zip(self.labels.classes, val["per_class_iou"], strict=True)
        shown = {f"miou/{name}": value for name, value in classes if value is not None}
        self._scalars({"miou/val": val["miou"], **shown}, record["step"])

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Show an epoch of a co-search.

        Args:
            record: of `corecord.EpochRecorder`.

        Raises:
            OutputError: it cannot be written.
        """
        shown = {"arch/entropy": record["entropy"]["student"]}
        for figure in ("entropy", "margin"):
            shown |= {f"arch/{figure}_{name}": value for name, value in record[figure].items()}
        if "latency_ms" in record:
            shown["latency/predicted_ms"] = record["latency_ms"]
        for key in ("miou", "teacher_miou", "gap"):
            shown |= {f"{key}/{name}": value for name, value in record.get(key, {}).items()}
        self._scalars(shown, record["step"])
        with self._writing() as writer:
            for name, logits in record["logits"].items():
                for kind, tensors in logits.items():
                    values = np.concatenate([np.ravel(rows) for rows in tensors])
                    writer.add_histogram(f"{kind}/{name}", values, record["step"])

    def panels(
        self,
        step: int,
        images: Sequence[Bytes],
        truths: Sequence[Bytes],
        predictions: Sequence[Bytes],
    ) -> None:
        """Show pictures: input, truth and prediction side by side.

        Args:
            step: optimiser steps done.
            images: (H, W, 3) uint8 BGR.
            truths: (H, W) uint8 train ids; what is ignored is black.
            predictions: (H, W) uint8 train ids.

        Raises:
            OutputError: they cannot be written.
        """
        with self._writing() as writer:
            for n, (image, *maps) in enumerate(zip(images, truths, predictions, strict=True)):
                row = np.hstack([image, *(colorize(ids, self.labels) for ids in maps)])
                rgb = np.ascontiguousarray(row[..., ::-1])
                writer.add_image(f"panel/{n}", rgb, step, dataformats="HWC")

    def trim(self, step: int) -> None:
        """Forget what came after a step: it will be done again."""
        self.close()
        self._purge_from = step + 1

    def close(self) -> None:
        """Close the event file; the next record opens another one."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _scalars(self, values: Mapping[str, float], step: int) -> None:
        with self._writing() as writer:
            for tag, value in values.items():
                writer.add_scalar(tag, value, step)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[SummaryWriter]:
        try:
            if self._open is None:
                # Not at the top: torch imports tensorboard with it, which may be missing.
                from torch.utils.tensorboard import SummaryWriter

                self._open = SummaryWriter(str(self.folder), purge_step=self._purge_from)
            yield self._open
            self._open.flush()
        except OSError as error:
            raise OutputError(f"cannot write {self.folder}: {error.strerror or error}") from error


@torch.inference_mode()
def show_panels(
    board: Board, step: int, network: Network, spec: DatasetSpec, pairs: Sequence[Pair]
) -> None:
    """Run a network over pictures and show what it makes of them; it is left in eval mode.

    Raises:
        SourceError: a picture or label cannot be read.
    """
    device = next(network.parameters()).device
    network.eval()
    samples = [read_pair(spec, pair) for pair in pairs]
    predictions = [
        network(to_input(torch.from_numpy(image[None]).to(device)))[0].argmax(0)
        for image, _ in samples
    ]
    board.panels(
        step,
        [image for image, _ in samples],
        [truth for _, truth in samples],
        [np.asarray(ids.to(torch.uint8).cpu().numpy()) for ids in predictions],
    )
