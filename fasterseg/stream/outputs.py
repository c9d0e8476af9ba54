"""Which files, folders or devices a request for output means, and whether they may be written."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from fasterseg.errors import OutputError, OutputExistsError, UnknownNameError, UsageError
from fasterseg.registry import unknown
from fasterseg.stream.sources import FrameSource, redacted

NOWHERE: Final = "null:"
STDOUT: Final = "-"
DISPLAY: Final = "display:"

VIDEO_SUFFIXES: Final = (".mp4", ".mkv", ".mov")
PICTURE_SUFFIXES: Final = (".png", ".bmp", ".jpeg", ".jpg", ".tif", ".tiff", ".webp")
_OTHER_SUFFIXES: Final = (".avi", ".gif", ".json", ".jsonl", ".m4v", ".webm")
MEDIA: Final = frozenset(VIDEO_SUFFIXES + PICTURE_SUFFIXES + _OTHER_SUFFIXES)
"""Suffixes of an OUTPUT that is meant to be one file."""

NUMBER: Final = re.compile(r"%(0?\d*)d")
"""A number pattern in a file name: `%06d`."""

_ADDRESS: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_TEMPORARY_BYTES: Final = 16
"""What names of temporary files add to the name of the file that is being written."""

Layout = Literal["file", "folder", "pattern", "stdout", "display", "network"]


@dataclass(frozen=True, slots=True)
class OutputPlan:
    """Where one format goes.

    Attributes:
        path: the file, the folder of many files, or the pattern of their names.
        layout: which of them; or standard output, a window or a server, which have no path.
        address: of a server, with credentials.
    """

    path: Path
    layout: Layout
    address: str = field(default="", repr=False)

    @property
    def is_video(self) -> bool:
        """Whether it is one video file."""
        return self.layout == "file" and self.path.suffix.lower() in VIDEO_SUFFIXES

    def numbered(self, index: int) -> Path:
        """The file for one index of a pattern."""
        return self.path.with_name(NUMBER.sub(lambda m: f"{index:{m[1]}d}", self.path.name, 1))


@dataclass(frozen=True, slots=True)
class _Form:
    """The files a format can be written to; the first suffix is the default.

    Attributes:
        video: suffixes for a video or camera; none: only a folder.
        image: suffixes for one image, and for each of several.
        whole: one file however many images there are.
        stream: may go to standard output.
        display: may be shown in a window.
        network: may be pushed to a server.
    """

    video: tuple[str, ...]
    image: tuple[str, ...]
    whole: bool = False
    stream: bool = True
    display: bool = False
    network: bool = False

    def suffixes(self, source: FrameSource) -> tuple[str, ...]:
        """Suffixes of the single file it can be; none where it must be a folder."""
        if source.kind == "image":
            return self.image
        return self.video if self.whole or source.kind != "images" else ()


FORMS: Final[Mapping[str, _Form]] = {
    "classmap": _Form((".mkv",), (".png",)),
    "classmap-png": _Form((), (".png",), stream=False),
    "overlay": _Form(VIDEO_SUFFIXES, PICTURE_SUFFIXES, display=True, network=True),
    "rle": _Form((".jsonl",), (".jsonl",), whole=True),
    "stats": _Form((".json",), (".json",), whole=True, stream=False),
}
"""Format -> where it can go."""


def is_address(output: str | None) -> bool:
    """Whether OUTPUT is on the network: `rtsp://server/name`, `udp://server:9000`."""
    return output is not None and _ADDRESS.match(output) is not None


def plan_outputs(
    output: str | None, formats: Sequence[str], source: FrameSource, *, overwrite: bool = False
) -> dict[str, OutputPlan]:
    """Format -> where it goes, checked; touches no file, so call it before a model is loaded.

    Args:
        output: with one format the file or folder, or a pattern such as `maps/%06d.png`; with
            several what their names start with. `-` is standard output, `display:` a window,
            `rtsp://server/name` a server that it is pushed to, `null:` writes nothing; None
            names it after the source.
        formats: names in `FORMS`.
        source: what the results come from.
        overwrite: replace what is there.

    Raises:
        UnknownNameError: a format that there is not.
        OutputExistsError: an output is there and `overwrite` was not given.
        UsageError: an output that cannot be right (see the message).
        OutputError: an output that cannot be written here.
    """
    wanted = list(dict.fromkeys(formats))
    for name in wanted:
        if name not in FORMS:
            raise UnknownNameError(unknown("format", name, FORMS))
    if not wanted:
        raise UsageError(f"no format was given; known: {', '.join(FORMS)}")
    if output == NOWHERE:
        return {}
    if output in (STDOUT, DISPLAY):
        return {wanted[0]: _device(output, wanted)}
    if output is not None and is_address(output):
        return {wanted[0]: _server(output, wanted, source)}
    try:
        plans = {name: _plan(name, output, len(wanted) > 1, source) for name in wanted}
        for plan in plans.values():
            _refuse_input(plan, source)
            _refuse_existing(plan, overwrite)
            _refuse_unwritable(plan)
    except OSError as error:
        raise OutputError(
            f"cannot look at OUTPUT {output}: {error.strerror or error}. Choose another place"
        ) from error
    except ValueError as error:
        raise UsageError(f"OUTPUT {output!r} cannot be a file name: {error}") from error
    return plans


def _device(output: str, wanted: Sequence[str]) -> OutputPlan:
    """Standard output or a window."""
    if len(wanted) > 1:
        raise UsageError(
            f"OUTPUT {output} takes one format, not {', '.join(wanted)}; give files for several"
        )
    form = FORMS[wanted[0]]
    if output == STDOUT:
        if not form.stream:
            raise UsageError(
                f"{wanted[0]} cannot go to standard output. What can: "
                f"{', '.join(name for name, form in FORMS.items() if form.stream)}; figures: "
                "--json -"
            )
        return OutputPlan(Path(output), "stdout")
    if not form.display:
        raise UsageError(f"a window shows overlays, not {wanted[0]}; leave --format out")
    from fasterseg.stream.sinks_display import display_problem

    if problem := display_problem():
        raise OutputError(problem)
    return OutputPlan(Path(output), "display")


def _server(address: str, wanted: Sequence[str], source: FrameSource) -> OutputPlan:
    """A server on the network."""
    from fasterseg.stream.sinks_address import target_of

    shown = redacted(address)
    pushed = ", ".join(name for name, form in FORMS.items() if form.network)
    if len(wanted) > 1 or not FORMS[wanted[0]].network:
        raise UsageError(
            f"OUTPUT {shown} takes {pushed} alone, not {', '.join(wanted)}; class shares and times "
            "as a file: --json FILE"
        )
    if source.kind in ("image", "images"):
        raise UsageError(
            f"OUTPUT {shown} takes a video or a camera; {_described(source)} have no times. Give a "
            "file or folder"
        )
    target_of(address)
    return OutputPlan(Path(shown), "network", address)


def _plan(name: str, output: str | None, several: bool, source: FrameSource) -> OutputPlan:
    suffix = next(iter(FORMS[name].suffixes(source)), "")
    if output is None:
        infix = f".{name}" if several else ""
        return _layout(Path(f"{source.stem}_fasterseg{infix}{suffix}"), suffix)
    path = Path(output).expanduser()
    if several:
        base = path.stem if path.suffix.lower() in MEDIA else path.name
        if output.endswith("/") or path.is_dir():
            path, base = path / "x", source.stem
        return _layout(path.with_name(f"{base}.{name}{suffix}"), suffix)
    return _single(name, path, output.endswith("/"), source)


def _layout(path: Path, suffix: str) -> OutputPlan:
    return OutputPlan(path, "file" if suffix else "folder")


def _single(name: str, path: Path, is_folder: bool, source: FrameSource) -> OutputPlan:
    """OUTPUT as the user wrote it, for the only format there is."""
    form = FORMS[name]
    suffix = path.suffix.lower()
    allowed = form.suffixes(source)
    is_folder = is_folder or path.is_dir() or suffix not in MEDIA
    if not is_folder and suffix in form.image and not form.whole and NUMBER.search(path.name):
        return OutputPlan(path, "pattern")
    if not is_folder and suffix in allowed:
        return OutputPlan(path, "file")
    if is_folder and form.whole:
        raise UsageError(f"{name} is one file; name it, for example {path / (name + allowed[0])}")
    if not is_folder:
        choices = [f"a file ending in {', '.join(sorted(allowed))}"] if allowed else []
        choices += [] if form.whole else ["a folder"]
        raise UsageError(
            f"OUTPUT '{path}' does not fit: {name} of {_described(source)} is written to "
            f"{' or '.join(choices)}"
        )
    if source.kind == "image":
        return OutputPlan(path / f"{source.stem}.png", "file")
    return OutputPlan(path, "folder")


def _described(source: FrameSource) -> str:
    names = {"image": "one image", "images": "several images", "camera": "a camera"}
    return names.get(source.kind, "a video")


def _refuse_input(plan: OutputPlan, source: FrameSource) -> None:
    """No output may be, or be written over, a file that is read; links are followed."""
    target = plan.path.resolve()
    files = {file.resolve() for file in source.files}
    if plan.layout == "folder" and source.kind == "images" and files:
        # Pictures keep their names and subfolders: writing to their root would replace them.
        files |= {file.parent for file in files}
        files.add(Path(os.path.commonpath([file.absolute().parent for file in source.files])))
    is_input = target in files or any(_is_same_file(target, file) for file in source.files)
    if plan.layout == "pattern":
        is_input = any(_fits(plan, file.resolve()) for file in source.files)
    if is_input:
        kind = "folder" if plan.layout == "folder" else "file"
        raise UsageError(f"OUTPUT {plan.path} is the input; give another {kind}")


def _is_same_file(target: Path, file: Path) -> bool:
    """Whether two names lead to one file, hard links and letter case included."""
    return target.exists() and file.exists() and target.samefile(file)


def _fits(plan: OutputPlan, file: Path) -> bool:
    """Whether a file bears a name of the pattern, in its folder."""
    before, after = (re.escape(part) for part in NUMBER.split(plan.path.name, 1)[::2])
    same_folder = file.parent == plan.path.parent.resolve()
    return same_folder and re.fullmatch(rf"{before}\d+{after}", file.name) is not None


def _refuse_existing(plan: OutputPlan, overwrite: bool) -> None:
    path = plan.path
    if plan.layout == "pattern":
        folder = path.parent.resolve()
        there = folder.is_dir() and any(_fits(plan, file) for file in folder.iterdir())
    else:
        mode = _mode(path)
        is_folder = mode is not None and stat.S_ISDIR(mode)
        if is_folder and plan.layout == "file":
            raise UsageError(f"OUTPUT {path} is a folder; give the name of a file")
        if mode is not None and not is_folder and plan.layout == "folder":
            raise UsageError(f"OUTPUT {path} is a file; give the name of a folder")
        there = any(path.iterdir()) if is_folder else mode is not None
    if there and not overwrite:
        raise OutputExistsError(f"{path} exists; give --overwrite, or another OUTPUT")


def _mode(path: Path) -> int | None:
    """Type and permissions of what is there; None when nothing is. Other faults are raised."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None


def _refuse_unwritable(plan: OutputPlan) -> None:
    path = plan.path.absolute()
    folder = path if plan.layout == "folder" else path.parent
    while _mode(folder) is None:
        folder = folder.parent
    if not folder.is_dir():
        raise OutputError(f"cannot write {plan.path}: {folder} is not a folder")
    writable = os.access(folder, os.W_OK | os.X_OK)
    if not writable or (path.is_file() and not os.access(path, os.W_OK)):
        where = path if writable else folder
        raise OutputError(
            f"cannot write {plan.path}: no permission in {where}. Choose another place, or mend "
            "its permissions"
        )
    longest = os.pathconf(folder, "PC_NAME_MAX") - _TEMPORARY_BYTES
    for part in (path, *path.parents):
        if len(os.fsencode(part.name)) > longest and _mode(part) is None:
            raise OutputError(
                f"cannot write {plan.path}: a name is longer than {longest} bytes; give a shorter "
                "OUTPUT"
            )
