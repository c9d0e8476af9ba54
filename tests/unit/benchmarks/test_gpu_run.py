"""Steps of `make gpu`: budgets, going on where a run ended, programs that take too long or fail."""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fasterseg.errors import ConfigError, UnknownNameError

FACTS = {"trial": False, "source": "abc", "device": "h200", "commit": "1234"}


@pytest.fixture(scope="module")
def gpu_run(scripts: None) -> Any:
    return importlib.import_module("gpu_run")


class Clock:
    """Seconds that pass when somebody says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """Steps without processes."""

    def __init__(self, gpu_run: Any, folder: Path) -> None:
        self.gpu_run, self.path = gpu_run, folder / "run.json"
        self.clock, self.notes = Clock(), list[str]()
        self.done: list[tuple[str, float]] = []
        self.answers: dict[str, Any] = {}

    def step(self, name: str, seconds: float = 60.0, least_s: float = 5.0) -> Any:
        return self.gpu_run.Step(name, f"does {name}", seconds, least_s)

    def state(self, **facts: Any) -> Any:
        state = self.gpu_run.State.load(self.path)
        state.begin({**FACTS, **facts})
        return state

    def run(self, names: str, limit_s: float = 100.0, took_s: float = 10.0, **facts: Any) -> Any:
        def work(step: Any, seconds: float) -> Any:
            self.done.append((step.name, seconds))
            self.clock.now += took_s
            usual = self.gpu_run.Ended("done", took_s, None, {"of": step.name})
            return self.answers.get(step.name, usual)

        state = self.state(**facts)
        steps = [self.step(name) for name in names]
        self.gpu_run.run_steps(
            steps, state, work, limit_s,
            on_note=self.notes.append, read_clocks=lambda: {"clocks.sm": "1980 MHz"},
            clock=self.clock,
        )  # fmt: skip
        return state


@pytest.fixture
def bench(gpu_run: Any, tmp_path: Path) -> Bench:
    return Bench(gpu_run, tmp_path)


def test_every_step_runs_once_and_its_result_is_kept(bench: Bench) -> None:
    bench.run("abc")
    again = bench.run("abc")
    assert [name for name, _ in bench.done] == ["a", "b", "c"]
    assert bench.notes[-1] == "c: done before"
    assert again.result("b") == {"of": "b"}
    assert again.steps["b"]["clocks"]["before"] == {"clocks.sm": "1980 MHz"}


def test_a_run_without_time_is_gone_on_with(bench: Bench) -> None:
    first = bench.run("abc", limit_s=18.0)
    assert [name for name, _ in bench.done] == ["a", "b"]
    assert first.steps["c"]["outcome"] == "not run"
    assert "8 s" not in first.steps["c"]["error"]
    bench.run("abc")
    assert [name for name, _ in bench.done] == ["a", "b", "c"]


def test_a_step_gets_no_more_than_what_is_left(bench: Bench) -> None:
    bench.run("ab", limit_s=40.0)
    assert bench.done == [("a", 40.0), ("b", 30.0)]


@pytest.mark.parametrize("outcome", ["failed", "out of time"])
def test_a_step_that_is_not_done_is_tried_again_and_costs_no_other(
    bench: Bench, gpu_run: Any, outcome: str
) -> None:
    bench.answers["a"] = gpu_run.Ended(outcome, 1.0, "because", {"half": 1})
    state = bench.run("ab")
    assert state.result("a") == {"half": 1}
    assert state.finished("b")
    bench.run("ab")
    assert [name for name, _ in bench.done] == ["a", "b", "a"]


@pytest.mark.parametrize("other", [{"source": "def"}, {"device": "a100"}, {"trial": True}])
def test_results_of_other_code_or_another_device_do_not_count(
    bench: Bench, other: dict[str, Any]
) -> None:
    bench.run("a")
    assert bench.state(**other).result("a") is None
    bench.run("a", **other)
    assert [name for name, _ in bench.done] == ["a", "a"]


def test_a_new_commit_of_the_same_code_keeps_what_is_there(bench: Bench) -> None:
    bench.run("a")
    bench.run("a", commit="5678")
    assert len(bench.done) == 1


def test_what_was_found_is_not_lost_to_a_step_that_was_not_begun(
    bench: Bench, gpu_run: Any
) -> None:
    bench.answers["a"] = gpu_run.Ended("out of time", 1.0, "late", {"half": 1})
    bench.run("a")
    state = bench.run("a", limit_s=0.0)
    assert state.result("a") == {"half": 1}


def test_a_file_of_something_else_is_refused(bench: Bench) -> None:
    bench.path.write_text('{"schema": 1}')
    with pytest.raises(ConfigError, match="not the file of a run"):
        bench.state()
    bench.path.write_text('{"schema": 2, "kind": "gpu-run", "run": {}, "steps": {}}')
    with pytest.raises(ConfigError, match="OUT=FOLDER"):
        bench.state()


def test_steps_are_chosen_by_name_or_by_what_they_do(bench: Bench, gpu_run: Any) -> None:
    steps = [bench.step(name) for name in ("parity", "bench-1", "bench-2", "table")]

    def names(text: str) -> list[str]:
        return [step.name for step in gpu_run.chosen(steps, text)]

    assert names("") == ["parity", "bench-1", "bench-2", "table"]
    assert names("table, bench") == ["bench-1", "bench-2", "table"]
    assert names("bench-2") == ["bench-2"]
    with pytest.raises(UnknownNameError, match="parity"):
        names("party")


# --- programs


@pytest.fixture
def program(gpu_run: Any, tmp_path: Path) -> Callable[[str, float], Any]:
    """Runs Python text as a step."""

    def run(text: str, seconds: float = 20.0) -> Any:
        script = tmp_path / "step.py"
        script.write_text("import sys, json, time, subprocess\nfrom pathlib import Path\n" + text)
        command = [sys.executable, str(script)]
        return gpu_run.in_process(command, tmp_path / "r.json", seconds, tmp_path / "log.txt")

    return run


KEEP = "Path(sys.argv[-1]).write_text(json.dumps({'kept': 1}))\n"


def test_a_programs_result_is_what_it_wrote(program: Any, tmp_path: Path) -> None:
    ended = program(KEEP + "print('hello')")
    assert (ended.outcome, ended.result, ended.error) == ("done", {"kept": 1}, None)
    assert "hello" in (tmp_path / "log.txt").read_text()
    assert not (tmp_path / "r.json").exists()


def test_a_program_that_fails_leaves_what_it_kept_and_its_last_words(program: Any) -> None:
    program("print('an earlier step')")
    ended = program(KEEP + "print('kaput', flush=True); sys.exit(3)")
    assert (ended.outcome, ended.result) == ("failed", {"kept": 1})
    assert ended.error == "exit code 3\nkaput"


def test_a_program_that_takes_too_long_ends_with_what_it_started(
    program: Any, tmp_path: Path
) -> None:
    child = "import time; time.sleep(1.5); open({!r}, 'w').write('x')".format(
        str(tmp_path / "late")
    )
    text = KEEP + f"subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    begin = time.monotonic()
    ended = program(text, 0.7)
    assert time.monotonic() - begin < 10
    assert (ended.outcome, ended.result) == ("out of time", {"kept": 1})
    time.sleep(1.5)
    assert not (tmp_path / "late").exists()


def test_keeper_writes_what_json_can_hold(gpu_run: Any, tmp_path: Path) -> None:
    import numpy as np

    from fasterseg.types import Size

    keeper = gpu_run.Keeper(tmp_path / "kept.json")
    keeper.keep(size=Size(3, 4), share=np.float64(1 / 3))
    keeper.keep(rows=[{"us": (1.0, 2.0)}], path=Path("a/b"))
    assert json.loads((tmp_path / "kept.json").read_text()) == {
        "size": "3x4",
        "share": 0.3333333,
        "rows": [{"us": [1.0, 2.0]}],
        "path": "a/b",
    }
