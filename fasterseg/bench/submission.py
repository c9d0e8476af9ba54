"""Files for the Cityscapes server: class maps in its label ids, a PNG a picture, and their zip."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from fasterseg.bench.accuracy import MirrorAveraged, engine_facts
from fasterseg.cache import make_folder, write_atomic
from fasterseg.datasets import DATASETS, Pair, Split
from fasterseg.errors import OutputError, OutputExistsError, SourceError, UsageError
from fasterseg.labels import CITYSCAPES
from fasterseg.preprocess import Fit, Geometry
from fasterseg.runtime.base import Engine, EngineSpec
from fasterseg.types import Size

SIZE: Final = DATASETS["cityscapes"].native_size
"""The only size of picture that the server scores."""

IMAGE_TAIL: Final = "_leftImg8bit"
RESULT_TAIL: Final = "_labelIds.png"

_ZIP_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Submission:
    """What was written, and by what.

    Attributes:
        folder: holds one PNG a picture.
        archive: the same files in a zip, which is what the server takes.
        sha256: of the zip.
        split: which part of Cityscapes.
        images: how many pictures.
        spec: what the engine is.
        backend: what ran it.
        device: where it ran.
        fit: how pictures were fitted to the engine's size.
        flip: whether logits were averaged with the mirrored frame's.
    """

    folder: Path
    archive: Path
    sha256: str
    split: Split
    images: int
    spec: EngineSpec
    backend: str
    device: str
    fit: Fit
    flip: bool

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "schema": 1,
            "folder": str(self.folder),
            "archive": str(self.archive),
            "sha256": self.sha256,
            "split": self.split,
            "images": self.images,
            **engine_facts(self.spec, self.backend, self.device),
            "fit": self.fit,
            "flip": self.flip,
        }


def result_name(image: Path) -> str:
    """Name of the result of a picture: `<city>_<sequence>_<frame>_leftImg8bit_labelIds.png`.

    Raises:
        SourceError: the picture is not named as Cityscapes does, so the server could not tell
            which one it is.
    """
    parts = image.stem.removesuffix(IMAGE_TAIL).split("_")
    if not image.stem.endswith(IMAGE_TAIL) or len(parts) != 3 or not "".join(parts[1:]).isdigit():
        raise SourceError(
            f"{image.name} is not named CITY_SEQUENCE_FRAME{IMAGE_TAIL}.png, by which the server "
            "tells pictures; take the folder as Cityscapes publishes it"
        )
    return image.stem + RESULT_TAIL


def check_target(folder: Path, pairs: Sequence[Pair], overwrite: bool) -> Path:
    """Where the zip of a folder of results goes: beside it, under its name.

    Raises:
        OutputExistsError: folder or zip are already there.
        UsageError: the folder is none, or holds PNGs that are no results of these pictures; the
            server refuses two for one picture.
        SourceError: a picture has another name than those of Cityscapes.
    """
    names = {result_name(pair.image) for pair in pairs}
    if folder.name in ("", "..") or (folder.exists() and not folder.is_dir()):
        raise UsageError(f"{folder} is no folder to put results in; name one, such as submission")
    archive = folder.with_name(f"{folder.name}.zip")
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}
    if strangers := sorted(there - names):
        raise UsageError(
            f"{folder} holds {len(strangers)} other PNGs ({strangers[0]}); the server takes one "
            "result for each picture and nothing else. Name an empty folder"
        )
    if not overwrite and (there or archive.exists()):
        taken = folder if there else archive
        raise OutputExistsError(f"{taken} exists; add --overwrite, or name another folder")
    return archive


def write_submission(
    engine: Engine,
    split: Split,
    pairs: Sequence[Pair],
    folder: Path,
    *,
    fit: Fit = "stretch",
    flip: bool = False,
    overwrite: bool = False,
    on_image: Callable[[int, int], None] | None = None,
) -> Submission:
    """Run an engine over pictures of Cityscapes and write what its server takes.

    Args:
        engine: of the 19 classes; takes one frame per call; stays open.
        split: name of the part, for the record.
        pairs: the pictures; label maps are not looked at and need not be there.
        folder: where the PNGs go; the zip lies beside it.
        fit: how pictures are fitted to the engine's size.
        flip: average logits with those of the mirrored frame.
        overwrite: replace results that are already there.
        on_image: called with (done, total) after each picture.

    Raises:
        UsageError: the engine has other classes, there are no pictures, or see `check_target`
            and `MirrorAveraged`.
        SourceError: a picture cannot be read, or is not of `SIZE`.
        OutputError: a file cannot be written.
    """
    check_classes(engine.spec)
    if not pairs:
        raise UsageError("there are no pictures to make results of")
    archive = check_target(folder, pairs, overwrite)
    make_folder(folder)
    runner = MirrorAveraged(engine) if flip else engine
    label_ids = np.zeros(256, np.uint8)
    label_ids[: len(CITYSCAPES)] = CITYSCAPES.source_ids
    for done, pair in enumerate(pairs, start=1):
        ids = cv2.LUT(_class_map(runner, pair, fit), label_ids)
        png = cv2.imencode(".png", ids)[1].tobytes()
        write_atomic(folder / result_name(pair.image), png)
        if on_image is not None:
            on_image(done, len(pairs))
    _pack(archive, [folder / result_name(pair.image) for pair in pairs])
    with archive.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Submission(
        folder=folder,
        archive=archive,
        sha256=sha256,
        split=split,
        images=len(pairs),
        spec=engine.spec,
        backend=engine.backend,
        device=engine.device,
        fit=fit,
        flip=flip,
    )


def check_classes(spec: EngineSpec) -> None:
    """Refuse an engine whose classes the server does not know.

    Raises:
        UsageError: they are not the 19 of Cityscapes, in its order.
    """
    if spec.labels.classes != CITYSCAPES.classes:
        raise UsageError(
            f"{spec.name} knows the {spec.num_classes} classes of {spec.labels.name}; the server "
            f"scores the {len(CITYSCAPES)} of Cityscapes. Name a model with these: --model"
        )


def _class_map(engine: Engine, pair: Pair, fit: Fit) -> NDArray[np.uint8]:
    image = DATASETS["cityscapes"].read_image(pair)
    source = Size(image.shape[0], image.shape[1])
    if source != SIZE:
        raise SourceError(
            f"{pair.image} is {source}, the server scores pictures of {SIZE} (HxW); take the "
            "folder as Cityscapes publishes it"
        )
    assert engine.spec.size is not None
    geometry = Geometry(source, engine.spec.size, fit)
    return geometry.inverse(engine.run(geometry.forward(image)[None])[0])


def _pack(archive: Path, files: Sequence[Path]) -> None:
    """Zip files flat; the same files give the same zip."""
    temporary = archive.with_name(f".{archive.name}.{secrets.token_hex(4)}.tmp")
    try:
        # PNGs do not shrink any further.
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as packed:
            for file in sorted(files):
                entry = zipfile.ZipInfo(file.name, _ZIP_EPOCH)
                entry.external_attr = 0o644 << 16
                packed.writestr(entry, file.read_bytes())
        temporary.replace(archive)
    except OSError as error:
        raise OutputError(f"cannot write {archive}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
