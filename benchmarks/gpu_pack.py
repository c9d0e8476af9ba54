"""What `make gpu` needs beside the repository, in one ignored folder that can be carried along.

    make gpu-pack CAMVID=FOLDER CLIP=drive.mp4 [SHARED=FOLDER] [MODELS='my-model ...']

CamVid's val and test pictures with their label maps, frames of a driving clip as PNG (a machine with
a plain PyTorch image decodes no video), the numeric fixtures that tests on a GPU read, and models
that are not in the repository. `manifest.json` has size and SHA-256 of every file; `make gpu` checks
them. The data keep their own terms: the folder is for measuring, and is not passed on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from fasterseg.arch.plan import plan
from fasterseg.bench.records import current_commit, now
from fasterseg.datasets import Split, dataset
from fasterseg.errors import FastersegError, OutputError, SourceError, UsageError
from fasterseg.runtime.model import resolve_model, write_model

SCHEMA: Final = 1
FOLDER: Final = Path("gpu-pack")
MANIFEST: Final = "manifest.json"
CAMVID: Final = "camvid"
FRAMES: Final = "frames"
MODELS: Final = "models"
SHARED: Final = "shared"

SPLITS: Final[tuple[Split, ...]] = ("val", "test")
FRAME_COUNT: Final = 16
LIMIT_MB: Final = 50.0

FIXTURES: Final = (
    "reference/parity/logits-meta.json",
    "reference/parity/logits-student.npz",
    "reference/parity/ops-index.json",
    "reference/parity/ops.npz",
)
"""Outputs of the original network and its operators, for tests that compare with them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the folder and say what is in it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--camvid", type=Path, required=True, help="folder with val.txt, test.txt")
    parser.add_argument("--clip", help="a driving clip; without one there are no real frames")
    parser.add_argument("--frames", type=int, default=FRAME_COUNT, help="of the clip")
    parser.add_argument("--shared", type=Path, help="folder with the numeric fixtures")
    parser.add_argument("--model", action="append", default=[], help="name or folder; repeatable")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--limit-mb", type=float, default=LIMIT_MB)
    given = parser.parse_args(arguments)
    try:
        manifest = make(given)
    except FastersegError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print("\n".join(lines(manifest, given.folder)))
    return 0


def make(given: argparse.Namespace) -> dict[str, Any]:
    """Fill a new folder, then put it in the place of the old one.

    Raises:
        SourceError: what is to be packed is not there.
        UsageError: it is more than may be carried, or the folder holds something else.
        OutputError: the folder cannot be written.
    """
    check_folder(given.folder)
    fresh = given.folder.with_name(f".{given.folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        fresh.mkdir(parents=True)
        pack_camvid(given.camvid, fresh / CAMVID)
        if given.clip:
            pack_clip(given.clip, given.frames, fresh / FRAMES)
        if given.shared:
            pack_fixtures(given.shared, fresh / SHARED)
        for name in given.model:
            pack_model(name, fresh / MODELS)
        manifest = describe(fresh)
        check_size(manifest, given.limit_mb)
        text = json.dumps(manifest, indent=1) + "\n"
        (fresh / MANIFEST).write_text(text, encoding="utf-8")
        if given.folder.exists():
            shutil.rmtree(given.folder)
        fresh.rename(given.folder)
    except OSError as error:
        raise OutputError(f"cannot write {given.folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return manifest


def check_folder(folder: Path) -> None:
    """Refuse to replace what is no pack.

    Raises:
        UsageError: the folder is there, and none of ours.
    """
    if folder.exists() and not (folder / MANIFEST).is_file() and any(folder.iterdir()):
        raise UsageError(f"{folder} holds no {MANIFEST}, so it is no pack; name another --folder")


def pack_camvid(root: Path, target: Path) -> None:
    """Copy pictures and label maps of `SPLITS`, with lists of them.

    Raises:
        SourceError: the folder, a list or a file is not there.
    """
    if not root.is_dir():
        raise SourceError(
            f"{root} is not there; give the folder of CamVid (val.txt, test.txt, pictures and "
            "label maps, as in the SegNet tutorial): make gpu-pack CAMVID=FOLDER"
        )
    spec = dataset("camvid")
    for split in SPLITS:
        listed = []
        for pair in spec.pairs(root, split):
            copied = [
                copy_file(file, target / split / kind / file.name)
                for kind, file in (("images", pair.image), ("labels", pair.label))
            ]
            listed.append(" ".join(file.relative_to(target).as_posix() for file in copied))
        (target / f"{split}.txt").write_text("\n".join(listed) + "\n", encoding="utf-8")


def pack_clip(clip: str, count: int, target: Path) -> None:
    """Write frames of a clip, evenly spread over it.

    Raises:
        SourceError: it cannot be read, or is shorter.
    """
    target.mkdir(parents=True)
    for number, image in enumerate(spread_frames(clip, count)):
        encoded = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1]
        (target / f"{number:03}.png").write_bytes(encoded.tobytes())


def spread_frames(clip: str, count: int) -> list[NDArray[np.uint8]]:
    """`count` frames, (H, W, 3) uint8 BGR, from the first to the last.

    Raises:
        SourceError: the clip cannot be read, or is shorter.
    """
    # Here only: it needs PyAV, and `make gpu` reads packs without it.
    from fasterseg.stream.sources import open_source

    source = open_source(clip)
    try:
        images = [frame.image for frame in source]
    finally:
        source.close()
    if len(images) < count:
        raise SourceError(f"{clip} has {len(images)} frames, {count} are wanted; give --frames")
    return [images[int(place)] for place in np.linspace(0, len(images) - 1, count).round()]


def pack_fixtures(root: Path, target: Path) -> None:
    """Copy the numeric fixtures.

    Raises:
        SourceError: one is not there.
    """
    for name in FIXTURES:
        copy_file(root / name, target / name)


def pack_model(name: str, target: Path) -> None:
    """Write a model with its weights as a folder that `--model FOLDER` reads.

    Raises:
        FastersegError: it is not there, or cannot be read.
        UsageError: it has no trained weights.
    """
    model = resolve_model(name)
    if not model.trained:
        raise UsageError(f"model {name} has no weights; a seed needs no packing")
    weights = model.load_weights(plan(model.genotype, model.train_size))
    ranges = model.load_ranges() if model.ranges is not None else None
    write_model(target / model.name, model, weights, dtype=np.float16, ranges=ranges)


def copy_file(source: Path, target: Path) -> Path:
    """Copy one file, with its folder.

    Raises:
        SourceError: it is not there.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(source, target)
    except FileNotFoundError as error:
        raise SourceError(f"{source} is not there; is the folder of its data complete?") from error
    return target


def describe(folder: Path) -> dict[str, Any]:
    """The manifest of what lies in a folder."""
    files = {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    return {"schema": SCHEMA, "created": now(), "commit": current_commit(), "files": files}


def sizes_mb(manifest: Mapping[str, Any]) -> dict[str, float]:
    """Part -> megabytes."""
    sizes: dict[str, float] = defaultdict(float)
    for name, facts in manifest["files"].items():
        sizes[name.partition("/")[0]] += facts["bytes"] / 1e6
    return dict(sizes)


def check_size(manifest: Mapping[str, Any], limit_mb: float) -> None:
    """See that it can be carried.

    Raises:
        UsageError: it is too large.
    """
    sizes = sizes_mb(manifest)
    if sum(sizes.values()) > limit_mb:
        parts = ", ".join(f"{part} {mb:.1f}" for part, mb in sizes.items())
        raise UsageError(
            f"{sum(sizes.values()):.1f} MB ({parts}) are more than {limit_mb:g} MB; take fewer "
            "--frames, a smaller --clip or fewer --model"
        )


def lines(manifest: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """What was packed, for people."""
    sizes = sizes_mb(manifest)
    for part, mb in sizes.items():
        count = sum(name.startswith(f"{part}/") for name in manifest["files"])
        yield f"{part:10s} {count:5d} files  {mb:6.1f} MB"
    yield f"{folder}: {len(manifest['files'])} files, {sum(sizes.values()):.1f} MB"


# --- reading, on the machine with the GPU -----------------------------------------------------------


class Pack:
    """A pack that is there and whole.

    Args:
        folder: made by `make gpu-pack`.

    Raises:
        SourceError: it is not there, or a file is missing or another one.
    """

    def __init__(self, folder: Path) -> None:
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SourceError(
                f"{folder} is no pack ({error}); make one where the data are: make gpu-pack "
                "CAMVID=FOLDER CLIP=FILE"
            ) from error
        self.folder = folder
        self.files: Mapping[str, Any] = manifest["files"]
        found = describe(folder)["files"]
        wrong = [name for name, facts in self.files.items() if found.get(name) != facts]
        if wrong:
            raise SourceError(
                f"{len(wrong)} files of {folder} are not as they were packed, the first is "
                f"{wrong[0]}; make the pack again: make gpu-pack"
            )

    @property
    def camvid(self) -> Path:
        """Folder of CamVid's val and test splits."""
        return self.folder / CAMVID

    def frames(self) -> list[NDArray[np.uint8]]:
        """Frames of the driving clip, (H, W, 3) uint8 BGR; none where it was packed without."""
        names = sorted(name for name in self.files if name.startswith(f"{FRAMES}/"))
        return [np.asarray(cv2.imread(str(self.folder / name)), np.uint8) for name in names]

    def models(self) -> list[Path]:
        """Folders of the packed models."""
        folder = self.folder / MODELS
        return sorted(path for path in folder.iterdir()) if folder.is_dir() else []


if __name__ == "__main__":
    sys.exit(main())
