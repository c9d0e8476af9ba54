"""Signals wait while files are open; the second one ends the process at once."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BEGIN = """
import os, signal, time
from fasterseg import interrupts

def strike(number=signal.SIGTERM):
    os.kill(os.getpid(), number)
    for _ in range(1000):  # the handler runs between two lines
        pass

def woken():
    print("woken", flush=True)
"""


def run(script: str, ignored: bool = False) -> tuple[int, str]:
    """Exit code and standard output of a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: prepare(ignored),
    )
    assert "SyntaxError" not in done.stderr
    return done.returncode, done.stdout


def prepare(ignored: bool) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_is_a_keyboard_interrupt(name: str) -> None:
    script = f"""
interrupts.install()
try:
    strike(signal.{name})
except KeyboardInterrupt:
    print("interrupted", interrupts.came())
"""
    assert run(script) == (0, "interrupted True\n")


def test_while_files_are_open_it_comes_at_the_end() -> None:
    script = """
interrupts.install()
try:
    with interrupts.deferred(woken):
        strike()
        print("closed")
    print("never")
except KeyboardInterrupt:
    print("interrupted")
"""
    assert run(script) == (0, "woken\nclosed\ninterrupted\n")


def test_an_error_that_leaves_the_block_is_not_hidden() -> None:
    script = """
interrupts.install()
try:
    with interrupts.deferred(woken):
        strike()
        raise OSError("disk full")
except OSError as error:
    print(error)
"""
    assert run(script) == (0, "woken\ndisk full\n")


def test_the_second_signal_ends_the_process_at_once() -> None:
    script = """
interrupts.install()
try:
    with interrupts.deferred(woken):
        strike(signal.SIGINT)
        strike(signal.SIGHUP)
        print("never")
finally:
    print("never")
"""
    assert run(script) == (130, "woken\n")


def test_a_program_told_to_ignore_hangups_does() -> None:
    script = """
interrupts.install()
strike(signal.SIGHUP)
print("alive")
"""
    assert run(script, ignored=True) == (0, "alive\n")


def test_in_other_threads_nothing_is_held_back() -> None:
    script = """
import threading
interrupts.install()

def work():
    with interrupts.deferred(woken):
        started.set()
        ended.wait(10)

started, ended = threading.Event(), threading.Event()
thread = threading.Thread(target=work)
thread.start()
started.wait(10)
try:
    strike()
except KeyboardInterrupt:
    print("interrupted")
ended.set()
thread.join()
"""
    assert run(script) == (0, "interrupted\n")


def test_a_settled_program_is_not_interrupted() -> None:
    script = """
interrupts.install()
interrupts.ignore()
strike()
print("done")
"""
    assert run(script) == (0, "done\n")
