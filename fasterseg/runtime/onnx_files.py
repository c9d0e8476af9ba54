"""ONNX files as engines come in: read whole, described inside, and what their graphs must be."""

from __future__ import annotations

import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from fasterseg.errors import EngineError, EngineMismatchError
from fasterseg.runtime.base import METADATA_KEY, EngineSpec
from fasterseg.runtime.tail import Ends, expected_ends

_LARGEST: Final = (2 << 30) - 1


def title_of(source: Path | bytes) -> str:
    """What errors call it."""
    return str(source) if isinstance(source, Path) else "the engine"


def read_content(source: Path | bytes) -> bytes:
    """The file, read here: not every runtime takes a file name that is no text.

    Raises:
        EngineError: it is missing, no file, too large, or cannot be read.
    """
    if isinstance(source, bytes):
        return source
    try:
        facts = source.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise EngineError(
                f"engine {source} is no file but a folder or a device; give the .onnx"
            )
        if facts.st_size > _LARGEST:
            raise EngineError(
                f"engine {source} is larger than ONNX files can be (2 GiB). Export it again: "
                "fasterseg export MODEL -o FILE.onnx"
            )
        return source.read_bytes()
    except FileNotFoundError:
        raise EngineError(
            f"engine {source} does not exist. Make one: fasterseg export MODEL -o {source}"
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise EngineError(
            f"cannot read engine {source}: {reason}. Mend its path or permissions, or make "
            "another: fasterseg export MODEL -o FILE.onnx"
        ) from error


def spec_in(metadata: Mapping[str, str], title: str) -> EngineSpec:
    """The description among the metadata properties of an ONNX file.

    Raises:
        EngineMismatchError: there is none, or it cannot be read.
    """
    if METADATA_KEY not in metadata:
        raise EngineMismatchError(
            f"{title} carries no engine description, so its classes, colour order and "
            "mean are unknown. A network of ours: fasterseg export MODEL -o FILE.onnx; any other: "
            "fasterseg export --from NETWORK.onnx --classes NAMES -o FILE.onnx"
        )
    return EngineSpec.from_json(metadata[METADATA_KEY], title)


def check_ends(spec: EngineSpec, title: str, taken: Sequence[Ends], given: Sequence[Ends]) -> None:
    """Refuse a graph that is not what its description says.

    Args:
        spec: the description.
        title: names the file in errors.
        taken: types and shapes of its inputs.
        given: of its outputs.

    Raises:
        EngineMismatchError: they differ, or graphs of that kind are no engines.
    """
    takes, gives = expected_ends(spec, title)
    for kind, found, expected in (("takes", taken, takes), ("gives", given, gives)):
        if list(found) != [expected]:
            raise EngineMismatchError(
                f"{title} {kind} {list(found)}, but its description says {[expected]}. "
                "Export it again: fasterseg export MODEL -o FILE.onnx"
            )
