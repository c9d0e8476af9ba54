"""Both ends of several streams: inputs opened side by side, and where each of them writes."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from fasterseg.errors import SourceError, UsageError
from fasterseg.stream.many import speaker
from fasterseg.stream.outputs import (
    FORMS,
    NOWHERE,
    NUMBER,
    PICTURE_SUFFIXES,
    STDOUT,
    VIDEO_SUFFIXES,
    OutputPlan,
    is_address,
    plan_outputs,
)
from fasterseg.stream.readahead import Worker
from fasterseg.stream.sinks import SinkOptions, check_options
from fasterseg.stream.sources import CAMERA, STDIN, FrameSource, kind_of, open_source, redacted
from fasterseg.stream.sources_options import SourceOptions

_FILES: Final = frozenset(
    (*VIDEO_SUFFIXES, *PICTURE_SUFFIXES, ".avi", ".gif", ".json", ".jsonl", ".m4v", ".webm")
)
"""Suffixes of an OUTPUT that is meant to be one file."""


def open_sources(uris: Sequence[str], options: SourceOptions) -> list[FrameSource]:
    """Open several inputs at the same time: cameras take their time.

    Args:
        uris: see `open_source`.
        options: which frames are taken, of each of them. Where there are live sources and files,
            what is about the ones is not asked of the others.

    Raises:
        UsageError: a camera, a pipe or standard input twice.
        SourceError: one cannot be opened; those that could be are closed again.
    """
    _refuse_twice(uris)
    opened: list[FrameSource | None] = [None] * len(uris)
    for_files = replace(options, reconnect_attempts=None, drop="auto")
    for_live = replace(options, loop=1)
    mixed = options.raw is None and len({_is_file(uri) for uri in uris}) > 1

    def opener(number: int) -> None:
        speaker.set(f"INPUT {number + 1}")
        alike = for_files if _is_file(uris[number]) else for_live
        opened[number] = open_source(uris[number], alike if mixed else options)

    workers = [Worker("opener", functools.partial(opener, number)) for number in range(len(uris))]
    for worker in workers:
        worker.start()
    try:
        for worker in workers:
            worker.join()
        errors = [worker.error for worker in workers if worker.error is not None]
        if len(errors) > 1 and all(isinstance(error, SourceError) for error in errors):
            raise SourceError("; ".join(map(str, errors)))
        if errors:
            raise errors[0]
    except BaseException:
        for source in opened:
            if source is not None:
                source.close()
        raise
    return [source for source in opened if source is not None]


def _is_file(uri: str) -> bool:
    return kind_of(uri) in ("image", "images", "video")


def _refuse_twice(uris: Sequence[str]) -> None:
    """Before anything is opened: what cannot be read twice at the same time."""
    counts = Counter(device for uri in uris if (device := _device(uri)) is not None)
    for device, count in counts.items():
        if count > 1:
            raise UsageError(
                f"{redacted(device)} is given {count} times, and can be read once only: leave the "
                "others out"
            )


def _device(uri: str) -> str | None:
    """What only one reader can have; None for files and URLs."""
    kind = kind_of(uri)
    if uri in STDIN:
        return "standard input"
    if kind not in ("camera", "pipe"):
        return None
    number = CAMERA.fullmatch(uri) or CAMERA.fullmatch(os.path.realpath(uri))
    return f"camera:{number[1]}" if number else os.path.realpath(uri)


def plan_streams(
    output: str | None,
    formats: Sequence[str],
    sources: Mapping[str, FrameSource],
    options: SinkOptions,
    *,
    overwrite: bool = False,
) -> dict[str, str]:
    """Name of a stream -> its OUTPUT for `open_sinks`, checked; touches no file.

    Args:
        output: see `folder_of`.
        formats: names in `FORMS`.
        sources: the streams, by name.
        options: how they are written.
        overwrite: replace what is there.

    Raises:
        UsageError: OUTPUT is no folder, or a file has two writers or is one of the inputs.
        FastersegError: see `plan_outputs` and `check_options`.
    """
    folder = folder_of(output)
    outputs = {
        name: output_of(folder, name, formats, source) if folder != NOWHERE else NOWHERE
        for name, source in sources.items()
    }
    files = {file.resolve(): name for name, source in sources.items() for file in source.files}
    writers: dict[Path, str] = {}
    for name, source in sources.items():
        plans = plan_outputs(outputs[name], formats, source, overwrite=overwrite)
        check_options(plans, options)
        for plan in plans.values():
            _refuse_shared(plan, name, writers, files)
    return outputs


def output_of(folder: str, name: str, formats: Sequence[str], source: FrameSource) -> str:
    """Where a stream writes: what its files' names begin with, its only file, folder or address."""
    place = f"{folder.rstrip('/') or '/'}/{name}"
    if is_address(folder):
        return place
    forms = [FORMS[format] for format in dict.fromkeys(formats) if format in FORMS]
    if len(forms) != 1:
        return place
    return f"{place}{next(iter(forms[0].suffixes(source)), '/')}"


def folder_of(output: str | None) -> str:
    """OUTPUT of several streams: a folder, where each has a file or folder, or `null:`.

    Raises:
        UsageError: it is missing, or is meant for one stream.
    """
    several = "with several INPUTs it is a folder, such as out/, with a file or folder for each"
    if output is None:
        raise UsageError(f"OUTPUT is missing; {several} (null: for nothing, or --view to look)")
    if output == NOWHERE:
        return output
    path = Path(output).expanduser()
    if path.is_dir() or output.endswith("/"):
        return output
    named = path.suffix.lower() in _FILES or NUMBER.search(path.name) is not None
    if named or output.endswith(":") or output == STDOUT or "://" in output:
        raise UsageError(f"OUTPUT '{redacted(output)}' takes one stream; {several}")
    if path.is_file():
        raise UsageError(f"OUTPUT {output} is a file; {several}")
    return output


def _refuse_shared(
    plan: OutputPlan, name: str, writers: dict[Path, str], files: Mapping[Path, str]
) -> None:
    """No file may have two writers, or be what any stream reads."""
    target = plan.path.resolve()
    other = writers.setdefault(target, name)
    if other != name:
        raise UsageError(
            f"streams {other} and {name} would both write {plan.path}; rename one of their INPUTs"
        )
    read = files.get(target)
    if plan.layout == "folder":
        read = next((who for file, who in files.items() if target in file.parents), None)
    if read is not None:
        raise UsageError(f"OUTPUT {plan.path} is what stream {read} reads; give another folder")
