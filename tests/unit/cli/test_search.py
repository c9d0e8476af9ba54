from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fasterseg import interrupts
from fasterseg.arch.genotype import Genotype
from fasterseg.arch.plan import plan
from fasterseg.cli.options import exit_code_of
from fasterseg.cli.search import app
from fasterseg.interrupts import INTERRUPTED, SIGNALS
from fasterseg.runtime.model import resolve_model
from fasterseg.types import Size
from tests.shared import ROOT
from tests.tiny_data import write_camvid

Command = Callable[..., tuple[int, str, str]]

CONFIG = """
dataset = "camvid"
student = "{genotype}"
images = 4
crop = "64x64"
batch = 2
precision = "fp32"
"""


ON_ONE_CORE = ("--data", "camvid", "--device", "cpu", "--threads", "1")


@pytest.fixture
def _process_as_before() -> Iterator[None]:
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    torch.set_num_threads(threads)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs the program in a folder that holds `camvid/`; gives exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    write_camvid(tmp_path / "camvid")

    def run(*arguments: str) -> tuple[int, str, str]:
        code = exit_code_of(app, list(arguments))
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def config(tmp_path: Path, tiny_genotype: Genotype, _process_as_before: None) -> str:
    """Settings of a run of two steps."""
    (tmp_path / "tiny.json").write_text(json.dumps(tiny_genotype.to_json()))
    (tmp_path / "train.toml").write_text(CONFIG.format(genotype=tmp_path / "tiny.json"))
    return "train.toml"


@pytest.mark.torch
def test_training_leaves_a_model_that_every_command_takes(search: Command, config: str) -> None:
    command = ("train", config, *ON_ONE_CORE, "--output", "run")
    code, _, err = search(*command, "--minutes", "0")
    assert code == 0
    assert "step 0 of 2, stopped" in err
    code, _, err = search(*command)
    assert code == 0
    assert "going on from step 0" in err
    assert "finished" in err
    assert "val mIoU" in err
    model = resolve_model("run/model.json")
    assert model.trained
    assert model.labels.name == "camvid"
    assert "2 of 2 steps" in model.about
    weights = model.load_weights(plan(model.genotype, Size(64, 64)))
    assert all(np.isfinite(array).all() for array in weights.values())


@pytest.mark.torch
def test_a_trained_model_starts_and_teaches_the_next(search: Command, config: str) -> None:
    base = ("train", config, *ON_ONE_CORE)
    assert search(*base, "--output", "one")[0] == 0
    code, _, err = search(*base, "--output", "two", "--init", "one/model.json")
    assert code == 0, err
    assert "teacher" not in Path("two/log.jsonl").read_text()
    code, _, err = search(*base, "--output", "three", "--teacher", "one/model.json")
    assert code == 0, err
    records = [json.loads(line) for line in Path("three/log.jsonl").read_text().splitlines()]
    assert records[0]["note"].startswith("teacher: ")
    assert any(record.get("distill", -1) >= 0 for record in records)


@pytest.mark.torch
def test_a_model_cannot_teach_its_own_copy(search: Command, config: str) -> None:
    base = ("train", config, *ON_ONE_CORE)
    assert search(*base, "--output", "one")[0] == 0
    more = ("--init", "one/model.json", "--teacher", "one/model.json")
    code, _, err = search(*base, "--output", "two", *more)
    assert code == 2
    assert "distillation would hold it back" in err


@pytest.mark.torch
def test_untrained_models_neither_start_nor_teach(search: Command, config: str) -> None:
    base = ("train", config, *ON_ONE_CORE, "--output", "run")
    for option in ("--init", "--teacher"):
        code, _, err = search(*base, option, "fasterseg-student")
        assert code == 2
        assert "no trained weights" in err


@pytest.mark.torch
def test_a_dry_run_prints_time_and_memory_and_writes_nothing(search: Command, config: str) -> None:
    command = ("train", config, *ON_ONE_CORE, "--output", "run")
    code, out, _ = search(*command, "--dry-run")
    assert code == 0
    assert "images/s" in out
    assert "GiB on cpu" in out
    assert not Path("run").exists()


@pytest.mark.torch
def test_an_old_run_is_not_overwritten(search: Command, config: str) -> None:
    command = ("train", config, *ON_ONE_CORE, "--output", "run")
    assert search(*command, "--minutes", "0")[0] == 0
    code, _, err = search(*command, "--resume", "never")
    assert code == 2
    assert "--resume automatic" in err
    code, _, err = search(*command, "--images", "8")
    assert code == 2
    assert "images: 4 -> 8" in err
    assert search(*command, "--images", "8", "--accept-changes", "--minutes", "0")[0] == 0


@pytest.mark.torch
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--role", "pupil"), "known: student, teacher"),
        (("--resume", "maybe"), "known: automatic, never"),
        (("--device", "tpu"), "known: auto, cpu, cuda"),
    ],
)
def test_wrong_options_list_the_right_ones(
    search: Command, config: str, arguments: tuple[str, ...], message: str
) -> None:
    code, _, err = search("train", config, "--data", "camvid", "--output", "run", *arguments)
    assert code == 2
    assert message in err


def wait_for_step(folder: Path, process: subprocess.Popen[bytes]) -> None:
    """Until the process has saved its third step."""
    deadline = time.monotonic() + 60
    while not any(int(path.stem[5:]) >= 3 for path in folder.glob("step-*.ckpt")):
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.torch
def test_asked_to_end_a_run_saves_itself(
    search: Command, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fasterseg.search.trainer import Trainer

    step = Trainer.train_step

    def interrupted(self: Trainer, *batch: Any) -> dict[str, float] | None:
        signal.raise_signal(signal.SIGTERM)
        return step(self, *batch)

    monkeypatch.setattr(Trainer, "train_step", interrupted)
    monkeypatch.setattr(interrupts, "_came", False)
    interrupts.install()
    code, _, err = search("train", config, *ON_ONE_CORE, "--output", "run")
    assert code == INTERRUPTED
    assert "step 1 of 2, stopped" in err
    assert Path("run/step-00000001.ckpt").exists()


@pytest.mark.torch
def test_after_a_kill_the_same_command_leads_to_the_same_bits(search: Command, config: str) -> None:
    text = Path(config).read_text().replace("images = 4", "images = 24") + "evaluate_frames = 1\n"
    Path("whole.toml").write_text(text)
    Path("killed.toml").write_text(f"{text}checkpoint_minutes = 1e-9\n")
    command = ("train", "killed.toml", *ON_ONE_CORE, "--output", "killed")
    program = [sys.executable, "-c", "from fasterseg.cli.search import run; run()", *command]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(program, env=environment) as process:
        wait_for_step(Path("killed"), process)
        process.kill()
    assert search(*command)[0] == 0
    assert search("train", "whole.toml", *ON_ONE_CORE, "--output", "whole")[0] == 0
    killed, whole = (Path(f) / "weights.safetensors" for f in ("killed", "whole"))
    assert killed.read_bytes() == whole.read_bytes()
