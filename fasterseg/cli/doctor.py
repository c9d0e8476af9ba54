"""`fasterseg doctor`: what works on this machine, and the line that mends what does not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Final

import typer

import fasterseg
from fasterseg.cli.options import DebugOption, LogFormat, LogFormatOption
from fasterseg.errors import EngineError
from fasterseg.finding import Finding
from fasterseg.registry import resolve

PROBES: Final[Mapping[str, str]] = {
    "cameras": "fasterseg.stream.capabilities:cameras",
    "codecs": "fasterseg.stream.capabilities:codecs",
    "cpu-kernels": "fasterseg.runtime.capabilities:cpu_kernels",
    "gstreamer": "fasterseg.stream.capabilities:gstreamer",
    "models": "fasterseg.runtime.capabilities:models",
    "onnxruntime": "fasterseg.runtime.capabilities:onnxruntime",
    "openvino": "fasterseg.runtime.capabilities:openvino",
    "packages": "fasterseg.bench.environment:packages",
    "push": "fasterseg.stream.capabilities:push",
    "storage": "fasterseg.runtime.capabilities:storage",
    "system": "fasterseg.bench.environment:system",
    "tensorrt": "fasterseg.runtime.capabilities:tensorrt",
    "torch": "fasterseg.runtime.capabilities:torch",
    "windows": "fasterseg.stream.capabilities:windows",
}
"""Name -> function without arguments that gives findings."""

SECTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "System": ("system",),
    "Packages": ("packages",),
    "Engines": ("onnxruntime", "openvino", "torch", "cpu-kernels", "tensorrt"),
    "Video": ("codecs", "push"),
    "Display and cameras": ("windows", "cameras", "gstreamer"),
    "Storage": ("storage",),
    "Models": ("models",),
}
"""Heading -> probes, in the order they are shown."""

NEEDED: Final = frozenset({"codecs", "models", "onnxruntime", "packages", "storage", "system"})
"""Probes without whose answer nothing can be segmented."""

LIMIT_S: Final = 120.0
_CHILD: Final = (
    "import sys; sys.path.append(sys.argv.pop(1)); from fasterseg.cli.main import run; run()"
)
_REINSTALL: Final = "pip install --force-reinstall fasterseg"

Report = dict[str, list[Finding]]


def doctor(
    json_: Annotated[bool, typer.Option("--json", help="As JSON, on stdout.")] = False,
    probe: Annotated[str | None, typer.Option(hidden=True)] = None,
    log_format: LogFormatOption = LogFormat.TEXT,
    debug: DebugOption = False,
) -> None:
    """Look at everything fasterseg uses here; tell what works and how to mend what does not.

    Engines and encoders are tried, each in a process of its own; nothing is changed. Exit code 0
    when a file can be segmented with the default model, else 4.
    """
    if probe is not None:
        print(json.dumps([finding.to_json() for finding in resolve(PROBES, "probe", probe)()]))
        return
    report = examine(_in_child)
    if json_:
        print(json.dumps(_as_json(report), indent=2))
    else:
        print("\n".join(render(report, shutil.get_terminal_size((100, 24)).columns)))
    if _unfit(report):
        raise typer.Exit(EngineError.exit_code)


def examine(ask: Callable[[str], list[Finding]]) -> Report:
    """Ask every probe.

    Args:
        ask: name of a probe -> its findings; called in several threads.
    """
    names = [name for names in SECTIONS.values() for name in names]
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        answers = dict(zip(names, pool.map(ask, names), strict=True))
    return {
        heading: [finding for name in names for finding in answers[name]]
        for heading, names in SECTIONS.items()
    }


def _in_child(probe: str) -> list[Finding]:
    """Findings of a process of its own: a broken library may crash or hang it."""
    source = str(Path(fasterseg.__file__).parents[1])
    command = [sys.executable, "-c", _CHILD, source, "doctor", "--probe", probe]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LIMIT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return [_crashed(probe, f"no answer within {LIMIT_S:.0f} s")]
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
        return [_crashed(probe, last.removeprefix("error: "))]
    # A library may have printed something before.
    return [Finding(**facts) for facts in json.loads(done.stdout.splitlines()[-1])]


def _crashed(probe: str, reason: str) -> Finding:
    return Finding(probe, "broken", reason, _REINSTALL, needed=probe in NEEDED)


def render(report: Report, columns: int) -> list[str]:
    """The report as lines of ASCII marks: heading, findings, remedies under what needs one."""
    findings = [finding for group in report.values() for finding in group]
    width = max(len(finding.name) for finding in findings)
    lines: list[str] = []
    for heading, group in report.items():
        lines += [heading, *(line for f in group for line in _lines(f, width, columns)), ""]
    return [*lines, *_verdict(findings)]


def _lines(finding: Finding, width: int, columns: int) -> list[str]:
    head = f"  {finding.state:<7}  {finding.name:<{width}}  "
    room = max(40, columns - len(head))
    parts = textwrap.wrap(finding.detail, room, break_long_words=False, break_on_hyphens=False)
    # Never wrapped, so that it can be copied.
    remedy = [f"mend: {finding.remedy}"] if finding.remedy and finding.state != "ok" else []
    lines = [*(parts or [""]), *remedy]
    return [(head if not i else " " * len(head)) + line for i, line in enumerate(lines)]


def _verdict(findings: Sequence[Finding]) -> list[str]:
    broken = [finding.name for finding in findings if finding.state == "broken"]
    unfit = [finding.name for finding in findings if finding.state == "broken" and finding.needed]
    if unfit:
        return [f"fasterseg cannot segment a file here; mend first: {', '.join(unfit)}"]
    also = f" Broken: {', '.join(broken)}." if broken else ""
    return [f"fasterseg can segment files here.{also}"]


def _unfit(report: Report) -> bool:
    return any(f.needed and f.state == "broken" for group in report.values() for f in group)


def _as_json(report: Report) -> dict[str, object]:
    return {
        "schema": 1,
        "fasterseg": fasterseg.__version__,
        "ok": not _unfit(report),
        "sections": {
            heading: [finding.to_json() for finding in group] for heading, group in report.items()
        },
    }
