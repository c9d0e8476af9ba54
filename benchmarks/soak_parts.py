"""What a soak starts: the camera that drops out, the program that is left alone. Used by `soak.py`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from soak_watch import asked, until

ROOT: Final = Path(__file__).resolve().parents[1]
SENDER: Final = Path(__file__).with_name("soak_sender.py")
VIDEO: Final = "out.overlay.mp4"
LINES: Final = "out.rle.jsonl"
STATS: Final = "out.stats.json"
FACTS: Final = "facts.json"

OUTAGE_S: Final = 3.0
BEGIN_S: Final = 600.0
"""How long the program may take to choose and open its engine."""
END_S: Final = 300.0
"""How long it may take to complete its files."""


class Camera:
    """The sender, which can be killed and started again at the same address."""

    def __init__(self, clip: Path, fps: float) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self._port = free.getsockname()[1]
        self._command = [sys.executable, str(SENDER), str(clip), str(self._port), str(fps)]
        self._process: subprocess.Popen[str] | None = None
        self.url = f"http://127.0.0.1:{self._port}/camera.ts"
        self.kills = 0

    def start(self) -> None:
        """Serve from now on.

        Raises:
            RuntimeError: it cannot.
        """
        self._process = subprocess.Popen(self._command, text=True, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "listening\n":
            raise RuntimeError("the sender does not start")

    def drop_out(self) -> None:
        """End without a word, and serve again after a while."""
        self.stop()
        self.kills += 1
        time.sleep(OUTAGE_S)
        self.start()

    def stop(self) -> None:
        """End without a word."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()


class Program:
    """`fasterseg-infer` as a process of a session of its own."""

    def __init__(self, url: str, folder: Path, options: Sequence[str]) -> None:
        self.arguments = [
            url, "out", "--format", "overlay,rle,stats", "--overwrite",
            "--view", "http://127.0.0.1:0", "--json", FACTS,
            "--reconnect-attempts", "-1", "--reconnect-interval", "0.5", *options,
        ]  # fmt: skip
        self._told = folder / "stderr.txt"
        environment = {"PYTHONPATH": str(ROOT), "FASTERSEG_CACHE": str(folder / "cache")}
        with self._told.open("w") as told:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fasterseg", "infer", *self.arguments],
                cwd=folder,
                env={**os.environ, **environment},
                stderr=told,
                start_new_session=True,
                # Whoever starts this in the background has it ignored.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        self.id = self._process.pid

    @property
    def told(self) -> str:
        """What it said on stderr."""
        return self._told.read_text(errors="replace")

    @property
    def runs(self) -> bool:
        """Whether it is still there."""
        return self._process.poll() is None

    def page(self) -> str:
        """Address of its live page, once frames come.

        Raises:
            RuntimeError: it does not come to that.
        """

        def address() -> str:
            _, _, rest = self.told.partition("live page: ")
            return rest.split()[0] if "\n" in rest else ""

        def counts() -> bool:
            url = address()
            return not self.runs or (url != "" and asked(url).get("frames", 0.0) > 0)

        if not until(counts, BEGIN_S, 0.5) or not self.runs:
            raise RuntimeError(f"the program did not begin:\n{self.told}")
        return address()

    def interrupt(self) -> int | None:
        """SIGINT; its exit code, None where it has to be killed."""
        if self.runs:
            self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(timeout=END_S)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()
