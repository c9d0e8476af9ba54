"""The state of a run in one file: written atomically, checked by hash, two generations kept."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from fasterseg.arch.genotype import Genotype
from fasterseg.cache import write_atomic
from fasterseg.errors import ConfigError, WeightsError
from fasterseg.search.settings import TrainSettings, differences

State = dict[str, Any]
"""Tensors, numbers, strings, lists and dicts of these; nothing that would need a pickle of code."""

KEPT: Final = 2
_MAGIC: Final = b"fasterseg checkpoint 1\n"
_HASH_CHARACTERS: Final = 64


def save(folder: Path, step: int, state: State) -> Path:
    """Write the state of a step; older files than the `KEPT` latest are removed afterwards.

    Raises:
        OutputError: it cannot be written (full disk, permissions); earlier files are intact.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    path = folder / f"step-{step:08d}.ckpt"
    digest = hashlib.sha256(payload).hexdigest().encode()
    write_atomic(path, _MAGIC + digest + b"\n" + payload)
    for old in found(folder)[:-KEPT]:
        with contextlib.suppress(OSError):
            old.unlink()
    return path


def found(folder: Path) -> list[Path]:
    """Checkpoints of a folder, earliest first."""
    return sorted(folder.glob("step-*.ckpt"))


def load(path: Path) -> State:
    """Read a checkpoint.

    Raises:
        WeightsError: it cannot be read, is damaged, or is not a checkpoint of ours.
    """
    return decode(read(path))


def read(path: Path) -> bytes:
    """The content of a checkpoint, checked, for `decode`.

    Raises:
        WeightsError: it cannot be read, is damaged, or is not a checkpoint of ours.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
    if not data.startswith(_MAGIC):
        raise WeightsError(f"{path} is not a checkpoint of this version of fasterseg")
    start = len(_MAGIC) + _HASH_CHARACTERS + 1
    digest = data[len(_MAGIC) : start - 1].decode("ascii", "replace")
    if hashlib.sha256(data[start:]).hexdigest() != digest:
        others = [other for other in found(path.parent) if other < path]
        remedy = f"to go on from {others[-1].name}" if others else "to start again"
        raise WeightsError(f"{path} is damaged (its hash does not match). Delete it {remedy}")
    return data[start:]


def decode(content: bytes) -> State:
    """The state in what `read` gave, its tensors on the CPU."""
    state: State = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state


def subject_of(state: State) -> dict[str, Any]:
    """What a state is a training of; see `Trainer`."""
    # Earlier checkpoints are of genotypes only, which stand under a key of their own.
    subject: dict[str, Any] = state.get("subject") or {"genotype": state["genotype"]}
    return subject


def changes(
    state: State,
    settings: TrainSettings,
    subject: Mapping[str, Any],
    provenance: Mapping[str, Any],
    path: str,
) -> list[str]:
    """What a run would do otherwise than the one that left a state; lines "key: old -> new".

    Args:
        state: from a checkpoint.
        settings: of the run that wants to go on.
        subject: what it trains, as JSON values.
        provenance: its "init" and "teacher" are compared; see `Trainer`.
        path: file of the state, for messages.

    Raises:
        ConfigError: the state is of something else.
    """
    theirs = subject_of(state)
    if _described(theirs) != _described(subject):
        raise ConfigError(
            f"{path} holds {_told(theirs)}, not {_told(subject)}. Choose another --output"
        )
    before = state["position"]["history"][-1:] or [{}]
    ours, old = (
        {key: one.get(key) for key in ("init", "teacher")} for one in (provenance, before[0])
    )
    return differences(settings.to_json(), state["settings"]) + differences(ours, old)


def _described(subject: Mapping[str, Any]) -> dict[str, Any]:
    """A subject in a form that compares: a genotype of an earlier version lacks no field."""
    genotype = subject.get("genotype")
    if genotype is None:
        return dict(subject)
    return {**subject, "genotype": Genotype.from_json(genotype).to_json()}


def _told(subject: Mapping[str, Any]) -> str:
    """A subject in a few words."""
    if "genotype" in subject:
        genotype = subject["genotype"]
        return f"the architecture {genotype['name']} ({genotype['num_classes']} classes)"
    content = json.dumps(_described(subject), sort_keys=True).encode()
    return f"{' and '.join(subject)} {hashlib.sha256(content).hexdigest()[:12]}"


def random_states() -> State:
    """States of every random generator of the process."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002
    version, internal, gauss_next = random.getstate()
    return {
        "python": [version, list(internal), gauss_next],
        "numpy": [kind, torch.from_numpy(np.array(keys)), position, has_gauss, gauss],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_states(states: State) -> None:
    """Put back what `random_states` took; CUDA's only where as many devices are there."""
    version, internal, gauss_next = states["python"]
    random.setstate((version, tuple(internal), gauss_next))
    kind, keys, position, has_gauss, gauss = states["numpy"]
    np.random.set_state((kind, keys.numpy(), position, has_gauss, gauss))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
