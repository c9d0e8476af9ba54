"""Both ends of several streams: inputs opened side by side, and where each of them writes."""

from __future__ import annotations

import functools
import logging
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from fasterseg.errors import SourceError, UsageError
from fasterseg.stream.live import AbsentError
from fasterseg.stream.many import speaker
from fasterseg.stream.outputs import (
    FORMS,
    MEDIA,
    NOWHERE,
    NUMBER,
    STDOUT,
    OutputPlan,
    is_address,
    plan_outputs,
)
from fasterseg.stream.readahead import Worker
from fasterseg.stream.sinks import SinkOptions, check_options
from fasterseg.stream.sources import CAMERA, STDIN, FrameSource, kind_of, open_source, redacted
from fasterseg.stream.sources_late import LateSource, now_of
from fasterseg.stream.sources_options import SourceOptions

_POLL_S: Final = 0.05
_LOG: Final = logging.getLogger("fasterseg.live")


def open_sources(uris: Sequence[str], options: SourceOptions) -> list[FrameSource]:
    """Open several inputs at the same time: cameras take their time.

    A live source that is not there, and is to be opened again, is a `LateSource`: the others need
    not wait for it. One of them all is there: where none is, this waits for the first that comes,
    if attempts were asked for.

    Args:
        uris: see `open_source`.
        options: which frames are taken, of each of them. Where there are live sources and files,
            what is about the ones is not asked of the others.

    Raises:
        UsageError: a camera, a pipe or standard input twice.
        SourceError: one cannot be opened and will not be again, or none can; those that could be
            are closed again.
    """
    _refuse_twice(uris)
    once = replace(options, patient=False)
    for_files = replace(once, reconnect_attempts=None, drop="auto")
    for_live = replace(once, loop=1)
    mixed = options.raw is None and len({_is_file(uri) for uri in uris}) > 1
    asked = [(for_files if _is_file(uri) else for_live) if mixed else once for uri in uris]
    opened: list[FrameSource | None] = [None] * len(uris)

    def opener(number: int) -> None:
        speaker.set(f"INPUT {number + 1}")
        opened[number] = open_source(uris[number], asked[number])

    workers = [Worker("opener", functools.partial(opener, number)) for number in range(len(uris))]
    for worker in workers:
        worker.start()
    try:
        for worker in workers:
            worker.join()
        errors = [worker.error for worker in workers]
        _raise_final(errors, may_wait=bool(options.reconnect_attempts))
        for number, error in enumerate(errors):
            if isinstance(error, AbsentError):
                opened[number] = LateSource(uris[number], asked[number], error)
        return _with_the_first(opened)
    except BaseException:
        for source in opened:
            if source is not None:
                source.close()
        raise


def _raise_final(errors: Sequence[BaseException | None], *, may_wait: bool) -> None:
    """Raise what no later attempt could mend; all of it where nothing could be opened."""
    failed = [error for error in errors if error is not None]
    final = [error for error in failed if not isinstance(error, AbsentError) or not error.attempts]
    nothing_is_there = len(failed) == len(errors) and not may_wait
    told = failed if nothing_is_there else final
    if len(told) > 1 and all(isinstance(error, SourceError) for error in told):
        raise SourceError("; ".join(map(str, told)))
    if told:
        raise next((error for error in told if not isinstance(error, SourceError)), told[0])


def _with_the_first(opened: Sequence[FrameSource | None]) -> list[FrameSource]:
    """All sources, once one of them is there.

    Raises:
        SourceError: none of them came.
    """
    sources = [source for source in opened if source is not None]
    late = [source for source in sources if isinstance(source, LateSource)]
    if len(late) == len(sources):
        _LOG.warning(
            "%s; waiting for the first that comes", "; ".join(source.reason for source in late)
        )
        while all(source.arrived is None for source in late):
            if all(source.settled for source in late):
                raise SourceError("; ".join(source.reason for source in late))
            time.sleep(_POLL_S)
    return [now_of(source) for source in sources]


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
    named = path.suffix.lower() in MEDIA or NUMBER.search(path.name) is not None
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
