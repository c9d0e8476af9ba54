"""How trained networks compare: mIoU on one split, and differences with their 95 % interval."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from fasterseg.cache import write_atomic
from fasterseg.errors import ConfigError
from fasterseg.metrics import ConfusionMatrix

if TYPE_CHECKING:
    from fasterseg.nn.network import Network
    from fasterseg.retarget.stage_context import Run

Counts = NDArray[np.int64]
"""(P, C, C): a confusion matrix of each picture."""

COUNTS: Final = "judged.npz"
SAMPLES: Final = 1000
_SEED: Final = 0


def judge(run: Run, network: Network) -> Counts:
    """Confusion matrices of a network on every picture of the split that settles it.

    Pictures are taken whole, at their own size, in fp32.

    Raises:
        SourceError: a picture or label cannot be read.
    """
    from fasterseg.search.scoring import evaluate

    pairs = run.spec.pairs(run.root, run.settings.train.judged_on)
    return np.stack([evaluate(network, run.spec, [pair]).counts for pair in pairs])


def store_counts(folder: Path, counts: Counts) -> None:
    """Keep them beside the network that they are of.

    Raises:
        OutputError: they cannot be written.
    """
    buffer = io.BytesIO()
    np.savez_compressed(buffer, counts=counts)
    write_atomic(folder / COUNTS, buffer.getvalue())


def stored_counts(folder: Path) -> Counts | None:
    """What `store_counts` kept; None where nothing was.

    Raises:
        ConfigError: the file is damaged.
    """
    path = folder / COUNTS
    if not path.exists():
        return None
    try:
        with np.load(path) as arrays:
            return np.asarray(arrays["counts"], np.int64)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{path} is damaged ({error}); remove it, and run again") from error


def miou(counts: Counts) -> float:
    """MIoU in percent over pictures."""
    return 100 * ConfusionMatrix.from_counts(counts.sum(0)).miou


def difference(ours: Sequence[Counts], theirs: Sequence[Counts]) -> dict[str, Any]:
    """What networks score more than others, in points of mIoU, with its 95 % interval.

    Pictures and trainings are drawn with replacement, the same ones on both sides where they are
    pairs. Pictures of one drive are alike, so the true uncertainty is larger.

    Args:
        ours: of each training, all on the same pictures.
        theirs: the same; as many trainings with the same seeds, or others (random networks).

    Returns:
        "mean", "low" and "high" in points, and the number of trainings on both sides.
    """
    random = np.random.default_rng(_SEED)
    paired = len(ours) == len(theirs)
    pictures = len(ours[0])
    gains = []
    for _ in range(SAMPLES):
        drawn = random.integers(0, pictures, pictures)
        left = random.integers(0, len(ours), len(ours))
        right = left if paired else random.integers(0, len(theirs), len(theirs))
        gains.append(_mean(ours, left, drawn) - _mean(theirs, right, drawn))
    low, high = np.nanpercentile(gains, [2.5, 97.5])
    mean = np.mean([miou(counts) for counts in ours]) - np.mean([miou(c) for c in theirs])
    return {
        "mean": round(float(mean), 3),
        "low": round(float(low), 3),
        "high": round(float(high), 3),
        "trainings": [len(ours), len(theirs)],
    }


def _mean(trainings: Sequence[Counts], which: NDArray[np.int64], drawn: NDArray[np.int64]) -> float:
    scores = {index: miou(trainings[index][drawn]) for index in {int(i) for i in which}}
    return float(np.mean([scores[int(index)] for index in which]))
