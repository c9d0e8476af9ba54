"""Steps with time budgets, each in a process of its own; what they found is kept after each.

A run that ends early (its time, its machine, a fault of one step) is gone on with by the same
command: finished steps are not run again, unless the code or the device are others.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from gpu_job import plain

from fasterseg.bench.records import now
from fasterseg.cache import write_atomic
from fasterseg.errors import ConfigError, UnknownNameError
from fasterseg.registry import unknown

SCHEMA: Final = 1
KIND: Final = "gpu-run"
FILE: Final = "run.json"
LOG: Final = "log.txt"

Outcome = Literal["done", "failed", "out of time", "not run"]

_GRACE_S: Final = 5.0
_SHOWN_LINES: Final = 12
_GPU_FIELDS: Final = (
    "clocks.sm", "clocks.mem", "power.draw", "temperature.gpu", "utilization.gpu", "memory.used",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do.

    Attributes:
        name: for `--steps` and the file.
        about: one line for people.
        seconds: it may take.
        least_s: it is not begun with less time left.
    """

    name: str
    about: str
    seconds: float
    least_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a step ended.

    Attributes:
        outcome: "done" once and for all; the others are tried again.
        seconds: it took.
        error: why it is not done, None where it is.
        result: what it found; where it ended early, what it had kept until then.
    """

    outcome: Outcome
    seconds: float
    error: str | None = None
    result: Any = None


@dataclass
class State:
    """The file of a run.

    Attributes:
        path: where it is kept.
        facts: of the whole run: commit, device, whether it is a trial.
        steps: name -> how the step ended, when, where and with which code.
    """

    path: Path
    facts: dict[str, Any]
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> State:
        """Read the file of a run; one that is not there is a run that has not begun.

        Raises:
            ConfigError: it cannot be read, or is something else.
        """
        if not path.exists():
            return cls(path, {})
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if (data["schema"], data["kind"]) != (SCHEMA, KIND):
                raise ConfigError(f"{path} is of another schema; name another folder: OUT=FOLDER")
            return cls(path, data["run"], data["steps"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path} is not the file of a run: {error!r}") from error

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Say what the run is about; results of another device or other code are run again."""
        self.facts = {**facts, "created": self.facts.get("created", now())}

    def finished(self, name: str) -> bool:
        """Whether a step need not be run any more."""
        return name in self.current and self.current[name]["outcome"] == "done"

    @property
    def current(self) -> dict[str, dict[str, Any]]:
        """The steps that ran with the code and on the device that the run is about now."""
        return {name: kept for name, kept in self.steps.items() if kept["of"] == self._of()}

    def result(self, name: str) -> Any:
        """What a step found, None where it found nothing or ran with other code or elsewhere."""
        return self.current.get(name, {}).get("result")

    def add(self, name: str, ended: Ended, clocks: Mapping[str, Any]) -> None:
        """Keep how a step ended; one that was not even begun leaves what is there."""
        if ended.outcome == "not run" and name in self.current:
            return
        self.steps[name] = {
            **asdict(ended),
            "seconds": round(ended.seconds, 1),
            "ended": now(),
            "of": self._of(),
            "clocks": dict(clocks),
        }
        self.save()

    def save(self) -> None:
        """Write the file, whole or not at all."""
        data = {"schema": SCHEMA, "kind": KIND, "run": self.facts, "steps": self.steps}
        write_atomic(self.path, (json.dumps(data, indent=1) + "\n").encode())

    def _of(self) -> dict[str, Any]:
        return {key: self.facts.get(key) for key in ("source", "device", "trial")}


class UnfinishedError(Exception):
    """A step that kept what it has, and goes on in the next run."""


Work = Callable[[Step, float], Ended]
"""Does a step within so many seconds."""


def run_steps(
    steps: Sequence[Step],
    state: State,
    work: Work,
    limit_s: float,
    *,
    on_note: Callable[[str], None],
    read_clocks: Callable[[], Any] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Do what is not done yet, in order, as far as time goes.

    Args:
        steps: in the order in which they matter.
        state: kept up to date.
        work: does a step.
        limit_s: for all of them together.
        on_note: gets one line a step.
        read_clocks: the GPU's clocks and power, taken before and after each step.
        clock: seconds.
    """
    end, read = clock() + limit_s, read_clocks or gpu_reading
    for step in steps:
        left = end - clock()
        if state.finished(step.name):
            on_note(f"{step.name}: done before")
        elif left < step.least_s:
            error = f"{left:.0f} s were left, it wants at least {step.least_s:.0f}; run again"
            state.add(step.name, Ended("not run", 0.0, error), {})
            on_note(f"{step.name}: not run, {error}")
        else:
            on_note(f"{step.name}: {step.about} (at most {min(step.seconds, left):.0f} s)")
            before = read()
            ended = work(step, min(step.seconds, left))
            state.add(step.name, ended, {"before": before, "after": read()})
            reason = "" if ended.error is None else f": {ended.error}"
            on_note(f"{step.name}: {ended.outcome} after {ended.seconds:.0f} s{reason}")


def in_process(command: Sequence[str], result: Path, seconds: float, log: Path) -> Ended:
    """Run a step as a program that writes its result as JSON, and end it when its time is over.

    Args:
        command: of the program; gets `--result FILE` besides.
        result: the file.
        seconds: it may take.
        log: gets everything it says.
    """
    result.unlink(missing_ok=True)
    begin = time.monotonic()
    with log.open("ab") as said:
        start = said.tell()
        # A session of its own: what it starts (compilers above all) must end with it.
        process = subprocess.Popen(
            [*command, "--result", str(result)],
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
    took, found = time.monotonic() - begin, _read(result)
    result.unlink(missing_ok=True)
    if code is None:
        return Ended("out of time", took, f"ended after {seconds:.0f} s", found)
    if code:
        return Ended("failed", took, _last_words(log, start, code), found)
    return Ended("done", took, None, found)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program and all that it started."""
    for number, patience in ((signal.SIGTERM, _GRACE_S), (signal.SIGKILL, _GRACE_S)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=patience)
            if number == signal.SIGKILL:
                return


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _last_words(log: Path, start: int, code: int) -> str:
    with log.open("rb") as said:
        said.seek(start)
        lines = said.read().decode(errors="replace").strip().splitlines()
    return f"exit code {code}\n" + "\n".join(lines[-_SHOWN_LINES:])


@dataclass(frozen=True, slots=True)
class Keeper:
    """Where the process of a step puts what it finds, as it finds it.

    Attributes:
        path: the file.
        found: all of it.
    """

    path: Path
    found: dict[str, Any] = field(default_factory=dict)

    def keep(self, **found: Any) -> None:
        """Add to the result: what is kept survives the end of the step's time."""
        self.found.update(found)
        write_atomic(self.path, json.dumps(plain(self.found)).encode())


def chosen(steps: Sequence[Step], names: str) -> list[Step]:
    """The steps of a list of names, in their own order; all for none. `bench` means every `bench-...`.

    Raises:
        UnknownNameError: one is no step.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if not any(_meant(step, name) for step in steps):
            raise UnknownNameError(unknown("step", name, [step.name for step in steps]))
    return [step for step in steps if not wanted or any(_meant(step, name) for name in wanted)]


def _meant(step: Step, name: str) -> bool:
    return step.name == name or step.name.startswith(f"{name}-")


def gpu_reading() -> dict[str, str] | None:
    """Clocks, power, heat and load at this moment as nvidia-smi tells; None without it."""
    command = ["nvidia-smi", f"--query-gpu={','.join(_GPU_FIELDS)}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    values = answer.stdout.splitlines()[0].split(",") if answer.stdout.strip() else []
    return dict(zip(_GPU_FIELDS, (value.strip() for value in values), strict=False))


def say(line: str) -> None:
    """A line for whoever waits."""
    print(f"[{time.strftime('%H:%M:%S')}] {line}", flush=True)
