"""`fasterseg-infer ... --view` as a process of its own, for tests that look at its page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.shared import ROOT

ANYWHERE = "http://127.0.0.1:0"


@contextmanager
def running(
    source: str | Path, *options: str, view: str = ANYWHERE
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process, and the address of its page as it tells it; killed in the end."""
    command = [sys.executable, "-m", "fasterseg", "infer", str(source), "--view", view, *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        yield process, _address(process)
    finally:
        process.kill()
        process.communicate(timeout=30)


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if found := re.match(r"live page: (\S+)", line):
            return found[1]
    raise AssertionError(f"it tells no address: {''.join(said)}")
