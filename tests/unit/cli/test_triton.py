"""`fasterseg export --format triton` as users type it."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import pytest

from fasterseg.runtime.plan_files import write_plan
from tests.plans import plan
from tests.unit.cli.conftest import Outcome, Run
from tests.unit.graph.test_foreign import network

pytestmark = pytest.mark.onnx

CAMVID = "fasterseg-camvid"


def export(run: Run, *arguments: object) -> Outcome:
    return run("export", *map(str, arguments), "--format", "triton", "-o", "models")


def config(folder: Path, name: str) -> str:
    return (folder / "models" / name / "config.pbtxt").read_text()


def test_a_model_becomes_a_folder_of_the_repository(run: Run, tmp_path: Path) -> None:
    outcome = export(run, CAMVID, "--size", "64x96")
    assert outcome.code == 0, outcome.stderr
    assert outcome.stdout.strip() == f"models/{CAMVID}"
    assert f"models/{CAMVID}/README.md" in outcome.stderr
    assert "dims: [ 64, 96, 3 ]" in config(tmp_path, CAMVID)


def test_options_reach_the_configuration(run: Run, tmp_path: Path) -> None:
    told = ("--batch", 2, "--device", "cpu", "--queue-delay-ms", 1.25, "--dynamic")
    outcome = export(run, CAMVID, "--size", "64x96", *told)
    assert outcome.code == 0, outcome.stderr
    text = config(tmp_path, CAMVID)
    for line in ("max_batch_size: 2", "kind: KIND_CPU", "max_queue_delay_microseconds: 1250",
                 "dims: [ -1, -1, 3 ]"):  # fmt: skip
        assert line in text


def test_without_output_it_lies_where_engines_are_built(run: Run, tmp_path: Path) -> None:
    outcome = run("export", CAMVID, "--size", "64x96", "--format", "triton")
    assert outcome.code == 0, outcome.stderr
    assert (tmp_path / "engines" / "build" / "triton" / CAMVID / "config.pbtxt").is_file()


def test_each_size_of_a_recipe_is_a_model(run: Run, tmp_path: Path) -> None:
    text = f'genotype = "zoo:{CAMVID}"\nsizes = ["64x64", "64x96"]\nprecision = "int8"\nbatch = 3\n'
    (tmp_path / "r.toml").write_text(text)
    outcome = export(run, "r.toml")
    assert outcome.code == 0, outcome.stderr
    names = [f"{CAMVID}_64x64", f"{CAMVID}_64x96"]
    assert [Path(line).name for line in outcome.stdout.splitlines()] == names
    for name in names:
        assert "max_batch_size: 3" in config(tmp_path, name)


def test_an_engine_file_is_repackaged(run: Run, tmp_path: Path) -> None:
    assert run("export", CAMVID, "--size", "64x96", "-o", "x.onnx").code == 0
    outcome = export(run, "x.onnx")
    assert outcome.code == 0, outcome.stderr
    assert "dims: [ 1, 64, 96, 3 ]" in config(tmp_path, CAMVID)


def test_a_plan_is_repackaged(run: Run, tmp_path: Path) -> None:
    write_plan(tmp_path / "x.engine", plan())
    outcome = export(run, "x.engine")
    assert outcome.code == 0, outcome.stderr
    assert 'platform: "tensorrt_plan"' in config(tmp_path, CAMVID)


def test_another_network_is_wrapped(run: Run, tmp_path: Path) -> None:
    onnx.save(network(stride=8), tmp_path / "my net.onnx")
    (tmp_path / "names.txt").write_text("sky\nroad\ncar\ntree\npole\n")
    told = ("--from", "my net.onnx", "--classes", "names.txt", "--size", "64x96", "--batch", 2)
    outcome = export(run, *told)
    assert outcome.code == 0, outcome.stderr
    assert "dims: [ 2, 64, 96, 3 ]" in config(tmp_path, "my-net")
    assert (tmp_path / "models/my-net/labels.txt").read_text().split() == [
        "sky", "road", "car", "tree", "pole",
    ]  # fmt: skip


def test_a_model_that_is_there_is_replaced_only_when_told(run: Run) -> None:
    assert export(run, CAMVID, "--size", "64x64").code == 0
    refused = export(run, CAMVID, "--size", "64x64")
    assert (refused.code, "--overwrite" in refused.stderr) == (2, True)
    assert export(run, CAMVID, "--size", "64x64", "--overwrite").code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([CAMVID, "--format", "tflite"], "onnx, triton"),
        ([CAMVID, "--device", "cpu"], "--device: only with --format triton"),
        ([CAMVID, "--queue-delay-ms", "2"], "--queue-delay-ms: only with --format triton"),
        ([CAMVID, "--format", "triton", "--device", "gpu"], "auto, cpu, cuda"),
        ([CAMVID, "--format", "triton", "--stages", "logits8"], "--stages: not with"),
        ([CAMVID, "--format", "triton", "--profile", "tensorrt"], "--profile: not with"),
        ([CAMVID, "--format", "triton", "--precision", "int4"], "fp32, fp16, int8"),
        ([CAMVID, "--format", "triton", "--ranges", "r.json"], "--ranges is for --precision int8"),
        ([CAMVID, "--format", "triton", "--mean", "0.5"], "only with --from"),
        (["x.onnx", "--format", "triton", "--size", "64x64"], "x.onnx is an engine already"),
        (["r.toml", "--format", "triton", "--size", "64x64"], "the recipe says it"),
        (["r.toml", "--format", "triton"], "fasterseg build r.toml"),
        (["--format", "triton"], "name a model or a recipe"),
    ],
)
def test_what_cannot_be_is_refused(
    run: Run, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "r.toml").write_text(
        f'genotype = "zoo:{CAMVID}"\nsizes = ["64x64"]\nprecision = "int8"\nprofile = "tensorrt"\n'
    )
    outcome = run("export", *arguments)
    assert outcome.code == 2
    assert message in re.sub(r"\s+", " ", outcome.stderr)
