"""`fasterseg infer` as a child that faults are done to, and what must hold of what it leaves."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import av
import cv2
import pytest

from tests.shared import ROOT

LIMIT_S: Final = 120.0
SMALL: Final = ("--engine", "onnxruntime", "--size", "64x96", "--threads", "1")
SHIM: Final = Path(__file__).with_name("faulty_disk.c")
TEMPORARY: Final = re.compile(r"\.(completing\..+|[0-9a-f]{8}\.tmp|.+\.[0-9a-f]{8}\.tmp)")
"""Names of files that are not whole yet."""


class Child:
    """The program, in a session of its own and in a folder of its own.

    Args:
        folder: where it runs.
        arguments: after `infer`.
        environment: beside this process's own.
        options: of `Popen`.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str | Path,
        environment: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        self._told = folder.parent / f"{folder.name}.stderr"
        environment = {
            "PYTHONPATH": str(ROOT),
            "FASTERSEG_CACHE": str(folder.parent / "cache"),
            **(environment or {}),
        }
        with self._told.open("ab") as told:
            self.process: subprocess.Popen[bytes] = subprocess.Popen(
                [sys.executable, "-m", "fasterseg", "infer", *map(str, arguments), *SMALL],
                cwd=folder,
                env={**os.environ, **environment},
                stderr=told,
                start_new_session=True,
                preexec_fn=_as_from_a_shell,
                **{"stdout": subprocess.DEVNULL, **options},
            )

    @property
    def told(self) -> str:
        """What it said on stderr."""
        return self._told.read_text(errors="replace")

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        """Until it holds; the program must live that long."""
        deadline_s = time.monotonic() + LIMIT_S
        while not condition():
            assert self.process.poll() is None, f"ended before {what}: {self.told}"
            assert time.monotonic() < deadline_s, f"{what} did not come: {self.told}"
            time.sleep(0.01)

    def end(self, number: signal.Signals | None = None) -> int:
        """Its exit code, after a signal if one is given; it must leave no process and no trace."""
        if number is not None:
            self.process.send_signal(number)
        code = self.process.wait(timeout=LIMIT_S)
        assert "Traceback" not in self.told
        assert "fault of fasterseg" not in self.told
        with pytest.raises(ProcessLookupError):
            os.killpg(self.process.pid, 0)
        return code

    def resident_mib(self) -> float:
        """Its resident memory."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"^VmRSS:\s+(\d+) kB", text, re.MULTILINE)
        assert found is not None
        return int(found[1]) / 1024

    def kill(self) -> None:
        """End it, whatever the test has come to."""
        self.process.kill()
        self.process.wait()


def _as_from_a_shell() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def faulty_disk(folder: Path, disk: Path, **faults: int) -> dict[str, str]:
    """The environment in which a folder lies on a slow or full disk; skips without a compiler.

    Args:
        folder: where the shim is compiled to.
        disk: the folder that is on it.
        faults: `ms` of every write; `bytes` that there is room for.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler for the shim that makes a disk slow or full")
    library = folder / "faulty_disk.so"
    command = [compiler, "-shared", "-fPIC", "-O1", str(SHIM), "-o", str(library), "-ldl"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode:
        pytest.skip(f"{compiler} cannot compile the shim: {built.stderr}")
    given = {f"FAULTY_{name.upper()}": str(value) for name, value in faults.items()}
    return {"LD_PRELOAD": str(library), "FAULTY_FOLDER": f"{disk.resolve()}/", **given}


def mounted(folder: Path, size: int) -> None:
    """Put a disk of so many bytes there; skips where that is not allowed."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"no small disk: {error}")
    if done.returncode:
        pytest.skip(f"no small disk: {done.stderr.strip()}")


def frames_of(video: Path, *, may_be_torn: bool = False) -> int:
    """Frames that can be decoded, to the end of the file; the last packet whole, or as told."""
    count = 0
    with av.open(str(video)) as container:
        for packet in container.demux(video=0):
            if may_be_torn and packet.is_corrupt:
                break
            count += len(packet.decode())
    return count


def plays(video: Path, least: int) -> None:
    """It has so many frames; where that is none, it may have no beginning yet."""
    try:
        assert frames_of(video, may_be_torn=True) >= least
    except (av.error.InvalidDataError, FileNotFoundError):
        assert least <= 0


def lines_of(path: Path, *, may_be_torn: bool = False) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines; all whole, but for the last where that may be."""
    if not path.exists():
        return []
    *whole, rest = path.read_bytes().split(b"\n")
    assert may_be_torn or rest == b""
    lines = [json.loads(line) for line in whole]
    assert [line["index"] for line in lines] == sorted({line["index"] for line in lines})
    return lines


def pictures_of(folder: Path) -> list[Path]:
    """The PNGs of a folder; each must be whole."""
    found = sorted(folder.glob("[!.]*.png")) if folder.exists() else []
    for path in found:
        assert path.read_bytes().endswith(b"IEND\xaeB`\x82"), path
        assert cv2.imread(str(path), cv2.IMREAD_UNCHANGED) is not None, path
    return found


def leftovers(folder: Path) -> list[Path]:
    """Files under temporary names; every other one that is hidden is a mistake."""
    hidden = [path for path in folder.rglob(".*") if path.is_file()]
    assert [path for path in hidden if not TEMPORARY.fullmatch(path.name)] == []
    return hidden


def account_of(facts: Path) -> dict[str, Any]:
    """What `--json` says of a live source, once its account adds up."""
    data: dict[str, Any] = json.loads(facts.read_text())
    live: dict[str, Any] = data["live"]
    parts = [live[part] for part in ("processed", "dropped", "passed_over", "unfinished")]
    assert min(parts) >= 0
    assert live["captured"] == sum(parts)
    assert live["processed"] == data["frames"]
    return live
