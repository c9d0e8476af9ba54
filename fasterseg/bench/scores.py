"""What `fasterseg-bench accuracy --json` says of an engine, for the plot against its latency."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fasterseg.bench.cells import Cell
from fasterseg.bench.records import BenchRecord
from fasterseg.config import parse_json
from fasterseg.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Score:
    """Accuracy of one engine.

    Attributes:
        model: name of the model.
        engine: backend.
        precision: numeric type inside.
        size: of the engine, "HxW".
        miou: percent.
        data: data set and split.
    """

    model: str
    engine: str
    precision: str
    size: str
    miou: float
    data: str

    @classmethod
    def load(cls, path: Path) -> Score:
        """Read what `accuracy --json FILE` wrote.

        Raises:
            ConfigError: it is something else.
        """
        try:
            data = parse_json(path.read_text(encoding="utf-8"))
            return cls(
                model=str(data["model"]),
                engine=str(data["engine"]),
                precision=str(data["precision"]),
                size=str(data["size"]),
                miou=float(data["miou"]),
                data=f"{data['dataset']} {data['split']}",
            )
        except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
            raise ConfigError(
                f"{path} is no result of an accuracy run ({error!r}); write one with: "
                "fasterseg-bench accuracy --json FILE"
            ) from error


def paired(records: Iterable[BenchRecord], scores: Sequence[Score]) -> list[tuple[Score, Cell]]:
    """Scores with the cells of the same model, engine, precision and size, one frame a call."""
    return [
        (score, cell)
        for record in records
        for cell in record.cells
        for score in scores
        if (score.model, score.engine, score.precision, score.size)
        == (record.model, cell.engine, cell.precision, str(cell.size))
        and (cell.peer, cell.batch, cell.streams, cell.sharing) == (None, 1, 1, None)
    ]
