"""`RunFiles`: what the folder of a run holds, as far as the run has got."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fasterseg.arch.genotype import Genotype
from fasterseg.bench.nominal import is_nominal
from fasterseg.bench.tables import Statistic, TableFile
from fasterseg.config import parse_json
from fasterseg.errors import ConfigError, UsageError
from fasterseg.retarget.measured import Measured, load_measured
from fasterseg.retarget.stage_context import (
    COMPARISON,
    SEARCH,
    SETTINGS,
    SUPERNET,
    TABLE,
    TRAINED,
    read_json,
)
from fasterseg.retarget.stage_search import LEDGER, MEASURED
from fasterseg.retarget.stages import RECORDS
from fasterseg.search.journal import LOG
from fasterseg.search.ledger import Ledger
from fasterseg.search.pareto import Scored

COSEARCH = "cosearch"
PRETRAIN = "pretrain"

Record = Mapping[str, Any]


@dataclass(frozen=True)
class RunFiles:
    """A run's folder, read when asked for; what is not there is empty or None.

    Attributes:
        folder: of the run.

    Every property raises `ConfigError` where its file is damaged.
    """

    folder: Path

    def _json(self, name: str) -> Any:
        path = self.folder / name
        return read_json(path) if path.exists() else None

    @cached_property
    def settings(self) -> Record:
        """`settings.json`."""
        return self._json(SETTINGS) or {}

    @cached_property
    def stages(self) -> Mapping[str, Record]:
        """`stages.json`: name of a stage -> its record."""
        return self._json(RECORDS) or {}

    @cached_property
    def table(self) -> TableFile | None:
        """`table.json`."""
        path = self.folder / TABLE
        return TableFile.load(path) if path.exists() else None

    @property
    def is_nominal(self) -> bool:
        """Whether latencies are those of a formula."""
        return self.table is not None and is_nominal(self.table)

    @cached_property
    def search(self) -> Record | None:
        """`search.json`."""
        found: Record | None = self._json(SEARCH)
        return found

    @property
    def targets(self) -> list[Record]:
        """What was chosen for each latency that was asked for."""
        return list((self.search or {}).get("targets", []))

    @property
    def choosing_stage(self) -> str:
        """The stage that settles the network."""
        return "derive" if self.settings.get("method") == "fasterseg" else "search"

    @property
    def statistic(self) -> Statistic:
        """The statistic that targets and prices are of."""
        fallback = self.table.statistic if self.table is not None else "p50"
        chosen: Statistic = (self.search or {}).get("statistic", fallback)
        return chosen

    @cached_property
    def scored(self) -> list[Scored]:
        """`search/scored.jsonl`, as far as it is of the supernet that was scored last."""
        path = self.folder / LEDGER
        records = read_lines(path)
        if not records:
            return []
        return Ledger(path, str(records[-1].get("supernet")), writes=False).scored

    @cached_property
    def measured(self) -> dict[str, Measured]:
        """`search/measured.json`: digest -> a network that was measured as a whole."""
        path = self.folder / MEASURED
        return load_measured(path) if path.exists() else {}

    @cached_property
    def comparison(self) -> Record | None:
        """`comparison.json`: random networks drawn before any training."""
        found: Record | None = self._json(COMPARISON)
        return found

    @cached_property
    def trained(self) -> Record | None:
        """`train.json`."""
        found: Record | None = self._json(TRAINED)
        return found

    def log(self, stage: str) -> list[Record]:
        """The log of a training under `<stage>/`."""
        return read_lines(self.folder / stage / LOG)

    @property
    def supernet_log(self) -> list[Record]:
        """The log of the supernet's training."""
        return self.log(SUPERNET)

    @property
    def training_logs(self) -> dict[str, list[Record]]:
        """Name of a training under `train/` -> its log."""
        folders = sorted(path.parent for path in self.folder.glob(f"train/*/{LOG}"))
        return {path.name: self.log(f"train/{path.name}") for path in folders}

    @property
    def epochs(self) -> list[Record]:
        """Records of the co-search that tell of an epoch."""
        return [record for record in self.log(COSEARCH) if "entropy" in record]

    def genotype(self, name: str) -> Genotype | None:
        """A chosen network."""
        data = self._json(name)
        return Genotype.from_json(data, str(self.folder / name)) if data is not None else None

    @property
    def exported(self) -> list[Path]:
        """Files under `export/`."""
        return sorted(path for path in self.folder.glob("export/*") if path.is_file())


def read_run(folder: Path) -> RunFiles:
    """Look at the folder of a run.

    Raises:
        UsageError: it is none.
    """
    if not any((folder / name).exists() for name in (SETTINGS, RECORDS, TABLE, SEARCH)):
        raise UsageError(
            f"{folder} is not the folder of a run; give the --output of `fasterseg-search run`"
        )
    return RunFiles(folder)


def read_lines(path: Path) -> list[Record]:
    """JSON lines, earliest first; none where there is no file. A last line cut short is left out.

    Raises:
        ConfigError: another line is damaged, or the file cannot be read.
    """
    try:
        data = path.read_bytes() if path.exists() else b""
        return [parse_json(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); redo its stage, see --redo") from error
