"""`Run`: what every stage of a run is given, and where its files lie."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fasterseg.arch.space import SearchSpace
from fasterseg.cache import write_atomic
from fasterseg.config import parse_json
from fasterseg.datasets import DatasetSpec
from fasterseg.errors import ConfigError, FastersegError
from fasterseg.retarget.settings import RetargetSettings
from fasterseg.types import Size

if TYPE_CHECKING:
    from fasterseg.bench.ops import Progress as BenchProgress
    from fasterseg.nn.network import Network
    from fasterseg.search.distributed import Group
    from fasterseg.search.journal import Progress
    from fasterseg.search.trainer import Trainer

TABLE: Final = "table.json"
SPLIT: Final = "split.json"
SUPERNET: Final = "supernet"
SEARCH: Final = "search.json"
GENOTYPE: Final = "genotype.json"
TEACHER: Final = "teacher.json"
COMPARISON: Final = "comparison.json"
TRAINED: Final = "train.json"
SETTINGS: Final = "settings.json"


class HaltedError(FastersegError):
    """A run was asked to stop, and what it has done is stored."""


def _nothing(*_: Any) -> None:
    """Whoever does not listen."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """Whom a run tells, and whom it asks.

    Attributes:
        note: gets a line for people.
        warn: gets a line that matters.
        stop: asked between steps; True ends the run, saved.
        before_step: called before every step of a training.
        show: told how a training gets on.
        measured: told how a measurement gets on.
        publish: writes a training's averaged weights as a model into its folder.
        teacher: a trained network of the data set's classes, by the name of its model.
    """

    note: Callable[[str], None] = _nothing
    warn: Callable[[str], None] = _nothing
    stop: Callable[[], bool] = lambda: False
    before_step: Callable[[], None] = _nothing
    show: Callable[[Progress], None] = _nothing
    measured: Callable[[BenchProgress], None] = _nothing
    publish: Callable[[Trainer, DatasetSpec], None] = _nothing
    teacher: Callable[[str, DatasetSpec], Network] | None = None


@dataclass(frozen=True)
class Run:
    """A run, for its stages.

    Attributes:
        folder: of its results.
        settings: what it is to do.
        spec: the data set.
        root: folder of the data set.
        device: what trains: "cpu" or "cuda".
        group: the processes that share the trainings and the scoring.
        hooks: whom to tell.
        table: a latency table that is there already, in place of measuring one.
        weights: folder of another run whose supernet is taken.
        force: go on where a check says that results mean little.
    """

    folder: Path
    settings: RetargetSettings
    spec: DatasetSpec
    root: Path
    device: str
    group: Group
    hooks: Hooks = field(default_factory=Hooks)
    table: Path | None = None
    weights: Path | None = None
    force: bool = False

    @property
    def space(self) -> SearchSpace:
        """The networks to choose from, with the classes of the data set."""
        return self.settings.space.space(len(self.spec.labels))

    @property
    def size(self) -> Size:
        """Height and width of the frames where the network is deployed."""
        return self.settings.frame_size

    @property
    def dataset(self) -> dict[str, str]:
        """The data set by what it is, wherever its description lies."""
        described = digest_of(self.spec.file) if self.spec.file else ""
        return {"name": self.spec.name, "description": described}

    def path(self, name: str) -> Path:
        """A file of the run."""
        return self.folder / name

    def tell(self, message: str) -> None:
        """A line for people, from the process that leads."""
        if self.group.leads:
            self.hooks.note(message)

    def check(self) -> None:
        """End the stage where the run was asked to stop; called where all is stored.

        Raises:
            HaltedError: it was.
        """
        if self.group.any(self.hooks.stop()):
            raise HaltedError("stopped; the same command goes on")

    def check_alone(self) -> None:
        """The same, where one process works and the others wait.

        Raises:
            HaltedError: it was asked to stop.
        """
        if self.group.world == 1 and self.hooks.stop():
            raise HaltedError("stopped; the same command goes on")


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a run.

    Attributes:
        settings: what of the settings its results depend on, as JSON values.
        sources: what it reads of earlier stages and of the data set, as hashes by name.
        work: does it, from wherever an earlier attempt got to; False where it was asked to stop.
        results: patterns of the files and folders it leaves, which redoing it removes.
        always: whether it is so quick that it is simply done anew where its inputs have changed.
    """

    settings: Callable[[Run], dict[str, Any]]
    sources: Callable[[Run], dict[str, str]]
    work: Callable[[Run], bool]
    results: tuple[str, ...]
    always: bool = False


def digest_of(path: Path) -> str:
    """SHA-256 (hex) of a file; empty where there is none.

    Raises:
        ConfigError: it cannot be read.
    """
    if not path.exists():
        return ""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error


def read_json(path: Path) -> Any:
    """The content of a file that an earlier stage wrote.

    Raises:
        ConfigError: it is missing or damaged.
    """
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be read ({error}); redo the stage that wrote it, see --redo"
        ) from error


def write_json(path: Path, value: Any) -> None:
    """Write a file that a later stage reads with `read_json`, all of it or nothing.

    Raises:
        OutputError: it cannot be written.
    """
    write_atomic(path, (json.dumps(value, indent=1) + "\n").encode())


def plain(value: Any) -> Any:
    """A value as JSON gives it back: tuples become lists."""
    return json.loads(json.dumps(value))
