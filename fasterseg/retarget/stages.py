"""The stages of a run: their order, which are done, which may begin, and which must be redone.

A stage is done when `stages.json` holds its key, a hash of everything its results depend on: its
part of the settings, and the hashes of what it read. Whatever was killed goes on where it stood;
results of other settings are never mixed with new ones.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fasterseg.bench.records import now
from fasterseg.cache import make_folder
from fasterseg.config import parse_json
from fasterseg.errors import ConfigError, OutputError, UnknownNameError, UsageError
from fasterseg.registry import resolve, unknown
from fasterseg.retarget.settings import Method
from fasterseg.retarget.stage_context import SETTINGS, HaltedError, Run, Stage, plain, write_json

RECORDS: Final = "stages.json"

STAGES: Final[Mapping[str, str]] = {
    "cosearch": "fasterseg.retarget.stage_cosearch:COSEARCH",
    "derive": "fasterseg.retarget.stage_cosearch:DERIVE",
    "export": "fasterseg.retarget.stage_export:EXPORT",
    "measure": "fasterseg.retarget.stage_measure:MEASURE",
    "pretrain": "fasterseg.retarget.stage_cosearch:PRETRAIN",
    "report": "fasterseg.retarget.stage_export:REPORT",
    "search": "fasterseg.retarget.stage_search:EVOLVE",
    "supernet": "fasterseg.retarget.stage_supernet:TRAIN_SUPERNET",
    "train": "fasterseg.retarget.stage_train:TRAIN",
}

METHODS: Final[Mapping[Method, Mapping[str, tuple[str, ...]]]] = {
    "evolve": {
        "measure": (),
        "supernet": (),
        "search": ("measure", "supernet"),
        "train": ("search",),
        "export": ("train",),
        "report": (),
    },
    "fasterseg": {
        "measure": (),
        "pretrain": (),
        "cosearch": ("measure", "pretrain"),
        "derive": ("cosearch",),
        "train": ("derive",),
        # Before the export, which refuses a search that has decided nothing.
        "report": (),
        "export": ("train",),
    },
}
"""Method -> its stages in order, each with those that must be done before."""


@dataclass
class Records:
    """What `stages.json` holds.

    Attributes:
        path: the file.
        stages: name -> "key", "inputs", "begun", "finished" (None before), "seconds".
    """

    path: Path
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> Records:
        """Read a run's records; none where nothing has run.

        Raises:
            ConfigError: the file is not one of ours.
        """
        path = folder / RECORDS
        if not path.exists():
            return cls(path)
        try:
            stages = parse_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{path} cannot be read ({error}); choose another --output, or remove the folder"
            ) from error
        if not (isinstance(stages, dict) and all(isinstance(s, dict) for s in stages.values())):
            raise ConfigError(
                f"{path} holds no records of stages; choose another --output, or remove the folder"
            )
        return cls(path, stages)

    def done(self, name: str) -> bool:
        """Whether a stage has ended."""
        return bool(self.stages.get(name, {}).get("finished"))

    def begin(self, name: str, inputs: Mapping[str, Any]) -> None:
        """Note that a stage is under way; one that goes on keeps its first moment."""
        fresh = {"key": key_of(inputs), "inputs": inputs, "begun": now(), "seconds": 0.0}
        self.stages.setdefault(name, fresh)["finished"] = None
        self.save()

    def end(self, name: str, seconds: float, finished: bool) -> None:
        """Note that work on a stage has ended, for good or for now."""
        record = self.stages[name]
        record["seconds"] = round(record["seconds"] + seconds, 3)
        record["finished"] = now() if finished else None
        self.save()

    def save(self) -> None:
        """Write the file.

        Raises:
            OutputError: it cannot be written.
        """
        write_json(self.path, self.stages)


def key_of(inputs: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of everything that a stage's results depend on."""
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def chosen_stages(method: Method, only: Sequence[str], skip: Sequence[str]) -> list[str]:
    """The stages to do, in order.

    Args:
        method: whose stages.
        only: names; none means all.
        skip: names that are left out.

    Raises:
        UnknownNameError: the method has no such stage.
    """
    order = list(METHODS[method])
    for name in (*only, *skip):
        if name not in order:
            raise UnknownNameError(unknown(f"stage of method {method}", name, order))
    return [name for name in order if (not only or name in only) and name not in skip]


def run_stages(run: Run, names: Sequence[str], redo: Sequence[str] = ()) -> bool:
    """Do some stages of a run, each unless it is done; False where it was asked to stop.

    Args:
        run: what to do it with.
        names: of the stages, in order; see `chosen_stages`.
        redo: stages whose results are thrown away first, with those of the stages that follow.

    Raises:
        ConfigError: the folder holds results of other settings.
        UsageError: a stage needs one that is neither done nor asked for.
    """
    order = METHODS[run.settings.method]
    chosen_stages(run.settings.method, redo, ())
    if run.group.leads:
        make_folder(run.folder)
        _forget(run, [name for name in order if name in _following(order, redo)])
        _check_settings(run, order)
        write_json(run.path(SETTINGS), run.settings.to_json())
    return all(_do(run, name, order[name]) for name in names)


def _do(run: Run, name: str, needs: Sequence[str]) -> bool:
    stage: Stage = resolve(STAGES, "stage", name)
    records = run.group.share(Records.load(run.folder))
    if lacking := [other for other in needs if not records.done(other)]:
        raise UsageError(
            f"stage {name} needs {', '.join(lacking)}, which {run.folder} has not finished; leave "
            f"out --stages, or skip {name} too"
        )
    inputs = inputs_of(run, stage)
    before = records.stages.get(name)
    stale = before is not None and before["key"] != key_of(inputs)
    if stale and (stage.always or _left_nothing(run, stage)):
        del records.stages[name]
        before = None
    elif before is not None and stale:
        raise _refusal(name, changes(before["inputs"], inputs), run.folder)
    if records.done(name):
        run.tell(f"{name}: done before")
        return True
    run.tell(f"{name}: {'goes on' if before else 'begins'}")
    if run.group.leads:
        records.begin(name, inputs)
    begun = time.monotonic()
    finished = False
    try:
        finished = stage.work(run)
    except HaltedError:
        finished = False
    finally:
        if run.group.leads:
            records.end(name, time.monotonic() - begun, finished)
    if not finished:
        run.tell(f"{name}: stopped; the same command goes on")
    return finished


def inputs_of(run: Run, stage: Stage) -> dict[str, Any]:
    """Everything that the results of a stage depend on, as JSON values."""
    inputs: dict[str, Any] = plain({"settings": stage.settings(run), "sources": stage.sources(run)})
    return inputs


def changes(old: Any, new: Any, name: str = "") -> list[str]:
    """Lines "key: old -> new" for two JSON values; hashes and long values are named only."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        prefix = f"{name}." if name not in ("", "settings", "sources") else ""
        keys = sorted({*old, *new})
        return [line for k in keys for line in changes(old.get(k), new.get(k), f"{prefix}{k}")]
    if old == new:
        return []
    short = all(len(str(value)) <= _SHOWN for value in (old, new))
    return [f"{name}: {old} -> {new}" if short else f"{name} is another one"]


_SHOWN: Final = 60


def _check_settings(run: Run, order: Iterable[str]) -> None:
    """Refuse changed settings before hours are spent on the stages before them."""
    records = Records.load(run.folder)
    for name in order:
        before = records.stages.get(name)
        if before is None:
            continue
        stage: Stage = resolve(STAGES, "stage", name)
        ours = plain(stage.settings(run))
        if _left_nothing(run, stage):
            continue
        if found := changes(before["inputs"]["settings"], ours):
            raise _refusal(name, found, run.folder)


def _left_nothing(run: Run, stage: Stage) -> bool:
    """Whether a stage failed before there was anything that could be mixed with other results."""
    return not any(path for pattern in stage.results for path in run.folder.glob(pattern))


def _refusal(name: str, found: Sequence[str], folder: Path) -> ConfigError:
    return ConfigError(
        f"{folder} holds the stage {name} of other inputs ({'; '.join(found[:6])}). Redo it and "
        f"what follows from it: --redo {name}, or choose another --output"
    )


def _following(order: Mapping[str, tuple[str, ...]], redo: Sequence[str]) -> set[str]:
    """The stages to redo, with all that read what these leave."""
    found = set(redo)
    for name, needs in order.items():
        if found & set(needs):
            found.add(name)
    return found


def _forget(run: Run, names: Sequence[str]) -> None:
    """Throw away what stages have left; the records last, so that a kill repeats it."""
    records = Records.load(run.folder)
    for name in names:
        stage: Stage = resolve(STAGES, "stage", name)
        for path in [path for pattern in stage.results for path in run.folder.glob(pattern)]:
            _remove(path)
        records.stages.pop(name, None)
    if names:
        records.save()


def _remove(path: Path) -> None:
    try:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot remove {path}: {error.strerror or error}. Mend its permissions, or choose "
            "another --output"
        ) from error
