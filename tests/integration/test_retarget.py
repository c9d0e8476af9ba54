"""`fasterseg-search run`: all of it in miniature, and killed at every corner."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from fasterseg.arch.genotype import Genotype
from fasterseg.arch.latency import LatencyTable
from fasterseg.arch.plan import plan
from fasterseg.retarget.settings import packaged_runs
from fasterseg.runtime.model import resolve_model
from tests.shared import ROOT

pytestmark = [pytest.mark.torch, pytest.mark.onnx]

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
PROGRAM = "from fasterseg.cli.search import run; run()"
DYING = """
import os, signal, sys
from pathlib import Path
left, whole = int(sys.argv.pop(1)), Path.replace
def replace(self, target):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(self, target)
Path.replace = replace
"""
"""Dies in the middle of a write: the new file lies beside the old one, and is not in its place."""

COMMON = ("--device", "cpu", "--threads", "1")


def search(folder: Path, *arguments: str, script: str = PROGRAM, dies_after: str = "") -> int:
    """Run the program in a folder; gives its exit code."""
    options = [dies_after] if dies_after else []
    command = [sys.executable, "-c", script, *options, *arguments]
    done = subprocess.run(
        command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=400
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr[-3000:]
    return done.returncode


@pytest.fixture(scope="module")
def folder(workshop: Path) -> Path:
    """What `run --smoke` leaves, in `smoke/`."""
    begun = time.monotonic()
    assert search(workshop, "run", "--smoke", "--output", "smoke", *COMMON) == 0
    assert time.monotonic() - begun < 240
    # A search never reads val and test: from here on they are gone.
    shutil.copytree(workshop / "smoke/data", workshop / "data")
    for split in ("val", "test"):
        shutil.rmtree(workshop / "data/images" / split)
        shutil.rmtree(workshop / "data/labels" / split)
    return workshop


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def genotype(path: Path) -> Genotype:
    return Genotype.from_json(read(path))


def test_a_miniature_leaves_network_table_and_report(folder: Path) -> None:
    smoke = folder / "smoke"
    for name in ("genotype.json", "table.json", "report.html"):
        assert (smoke / name).read_bytes() == (smoke / "evolve" / name).read_bytes()
    for method in ("evolve", "fasterseg"):
        run = smoke / method
        assert all(record["finished"] for record in read(run / "stages.json").values())
        assert resolve_model(str(run / "train/searched")).trained
        assert list((run / "export").glob("searched_*.onnx"))
        assert "<svg" in (run / "report.html").read_text(encoding="utf-8")
    assert "teacher" in {arm["how"] for arm in read(smoke / "fasterseg/train.json")["arms"]}


def test_a_looser_target_gives_another_and_slower_network(folder: Path) -> None:
    run = folder / "smoke/evolve"
    table = LatencyTable.load(run / "table.json")
    tight, loose = read(run / "search.json")["targets"]
    first, second = (genotype(run / target["file"]) for target in (tight, loose))
    times = [table.price(plan(one, table.size)).ms for one in (first, second)]
    assert first.digest() != second.digest()
    assert times[0] < times[1]
    for ms, target in zip(times, (tight, loose), strict=True):
        assert 0.85 * target["target_ms"] <= ms <= target["target_ms"]
        assert target["evolve"]["evaluations"] == target["random"]["evaluations"]
        assert target["hand"]


def test_what_it_is_compared_with_was_drawn_before_any_training(folder: Path) -> None:
    run = folder / "smoke/evolve"
    comparison, chosen = read(run / "comparison.json"), read(run / "search.json")["targets"][0]
    assert comparison["drawn"] <= read(run / "stages.json")["train"]["begun"]
    assert comparison["to"] == chosen["chosen"]
    assert len(comparison["networks"]) == 1
    for entry in comparison["networks"]:
        assert entry["measured_ms"] == pytest.approx(chosen["measured_ms"], rel=0.02)
    trained = {arm["digest"] for arm in read(run / "train.json")["arms"]}
    assert {entry["digest"] for entry in comparison["networks"]} <= trained


def test_supernet_scores_of_what_was_trained_are_those_of_the_search(folder: Path) -> None:
    run = folder / "smoke/evolve"
    known = [json.loads(line) for line in (run / "search/scored.jsonl").read_text().splitlines()]
    searched = {one["digest"]: one["miou"] for one in known}
    arms = [arm for arm in read(run / "train.json")["arms"] if arm["inherits"]]
    assert arms
    for arm in arms:
        if arm["digest"] in searched:
            assert arm["supernet_miou"] == pytest.approx(100 * searched[arm["digest"]], abs=1e-3)
    assert any(arm["digest"] in searched for arm in arms)
    assert read(run / "train.json")["fidelity"]["networks"] == len({a["digest"] for a in arms})


def kill_when(folder: Path, there: Path, *arguments: str) -> None:
    """Start the program and kill it as soon as a file is there."""
    command = [sys.executable, "-c", PROGRAM, *arguments]
    with subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stderr=subprocess.DEVNULL) as one:
        deadline = time.monotonic() + 200
        while not there.exists():
            assert one.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        one.kill()


def test_killed_in_stages_and_in_writes_it_ends_with_the_same_bytes(folder: Path) -> None:
    command = ("search", "smoke", "--dataset", "data/streets.toml", "--output", "killed", *COMMON)
    run = folder / "killed"
    for writes in ("1", "5"):
        assert search(folder, *command, script=DYING + PROGRAM, dies_after=writes) == -9
    kill_when(folder, run / "search/scored.jsonl", *command)
    assert search(folder, *command, script=DYING + PROGRAM, dies_after="3") == -9
    assert search(folder, *command) == 0
    for name in ("genotype.json", "genotype-3ms.json"):
        assert (run / name).read_bytes() == (folder / "smoke/evolve" / name).read_bytes()
    assert not list(run.glob("train*")), "nothing is trained by itself"
    shutil.rmtree(run)


def test_a_killed_co_search_ends_with_the_same_bytes(folder: Path) -> None:
    recipe = packaged_runs()["smoke"].read_text(encoding="utf-8")
    for old, new in (
        ('dataset = ""', 'method = "fasterseg"\ndataset = "data/streets.toml"'),
        ("[2.0, 3.0]", "[2.0]"),
        ("stem_widths = [4, 6]", "stem_widths = [6]"),
        ("head_widths = [4, 6]", "head_widths = [6]"),
    ):
        assert old in recipe
        recipe = recipe.replace(old, new)
    (folder / "gradient.toml").write_text(recipe)
    command = ("search", "gradient.toml", "--output", "gradient", *COMMON)
    run = folder / "gradient"
    kill_when(folder, run / "cosearch/log.jsonl", *command)
    assert search(folder, *command) == 0
    for name in ("genotype.json", "teacher.json"):
        assert (run / name).read_bytes() == (folder / "smoke/fasterseg" / name).read_bytes()
    shutil.rmtree(run)


def test_another_run_takes_the_supernet_and_the_table(folder: Path) -> None:
    recipe = packaged_runs()["smoke"].read_text(encoding="utf-8")
    settings = recipe.replace('dataset = ""', 'dataset = "data/streets.toml"')
    (folder / "again.toml").write_text(settings.replace("[2.0, 3.0]", "[2.5]"))
    source = "smoke/evolve"
    given = ("--supernet", source, "--table", f"{source}/table.json")
    assert search(folder, "search", "again.toml", *given, "--output", "again", *COMMON) == 0
    chosen = read(folder / "again/search.json")["targets"][0]
    assert 0.85 * 2.5 <= chosen["measured_ms"] <= 2.5
    log = folder / "again/supernet/log.jsonl"
    assert not log.exists(), "nothing was trained"
