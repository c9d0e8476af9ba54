"""`fasterseg export`, `verify`, `info` and `streets` as users type them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import onnx
import pytest

from tests.shared import ROOT
from tests.unit.cli.conftest import Run

pytestmark = pytest.mark.onnx

CAMVID = "fasterseg-camvid"


def test_export_writes_a_valid_file_and_prints_its_path(run: Run, tmp_path: Path) -> None:
    outcome = run("export", CAMVID, "--size", "64x96", "-o", tmp_path / "x.onnx")
    assert outcome.code == 0, outcome.stderr
    assert outcome.stdout.strip() == str(tmp_path / "x.onnx")
    onnx.checker.check_model(str(tmp_path / "x.onnx"), full_check=True)


def test_export_of_a_recipe_makes_one_file_per_size(run: Run, tmp_path: Path) -> None:
    shutil.copy(ROOT / "engines/recipes/fasterseg-camvid-fp32.toml", tmp_path / "r.toml")
    outcome = run("export", "r.toml")
    assert outcome.code == 0, outcome.stderr
    names = sorted(p.name for p in (tmp_path / "engines/build").glob("*.onnx"))
    assert names == [
        "fasterseg-camvid_360x480_b1_fp32.onnx",
        "fasterseg-camvid_360x640_b1_fp32.onnx",
    ]


@pytest.mark.parametrize(
    ("arguments", "inputs", "output"),
    [
        ((), "uint8[1,64,96,3]", "uint8[1,64,96]"),
        (("--batch", "2"), "uint8[2,64,96,3]", "uint8[2,64,96]"),
        (("--stages", "network"), "float32[1,3,64,96]", "float32[1,11,64,96]"),
        (("--stages", "logits8"), "uint8[1,64,96,3]", "float32[1,11,8,12]"),
        (("--dynamic",), "uint8[batch,height,width,3]", "uint8[batch,height,width]"),
    ],
)
def test_what_goes_in_and_comes_out(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], inputs: str, output: str
) -> None:
    target = tmp_path / "x.onnx"
    assert run("export", CAMVID, "--size", "64x96", "-o", target, *arguments).code == 0
    graph = onnx.load(target).graph
    assert (signature(graph.input[0]), signature(graph.output[0])) == (inputs, output)


def signature(value: onnx.ValueInfoProto) -> str:
    kind = value.type.tensor_type
    dims = ",".join(d.dim_param or str(d.dim_value) for d in kind.shape.dim)
    return f"{onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)}[{dims}]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "fasterseg-camvid"),
        ([CAMVID, "-o", "x.engine"], ".onnx"),
        ([CAMVID, "--precision", "int4"], "fp32, fp16, int8"),
        ([CAMVID, "--precision", "int8", "--profile", "gpu"], "cpu, tensorrt"),
        ([CAMVID, "--profile", "tensorrt"], "--precision int8"),
        ([CAMVID, "--ranges", "x.ranges.json"], "--precision int8"),
        ([CAMVID, "--stages", "head"], "labels, logits8, network"),
        ([CAMVID, "--size", "10x10"], "64x64"),
        (["missing.toml"], "missing.toml"),
    ],
)
def test_wrong_exports_are_refused(run: Run, arguments: list[str], message: str) -> None:
    outcome = run("export", *arguments)
    assert outcome.code == 2
    assert message in outcome.stderr


def test_info_tells_what_an_engine_file_is(run: Run, tmp_path: Path) -> None:
    run("export", CAMVID, "--size", "64x96", "-o", "x.onnx")
    facts = json.loads(run("info", "x.onnx", "--json").stdout)
    assert facts["size"] == "64x96"
    assert facts["precision"] == "fp32"
    assert facts["trained"] is True
    assert facts["labels"]["classes"][0] == "Sky"
    text = run("info", "x.onnx").stdout
    assert "64x96" in text
    assert "Bicyclist" in text


def test_info_tells_precision_and_profile_of_an_int8_engine(run: Run) -> None:
    arguments = ("--size", "64x96", "--precision", "int8", "--profile", "tensorrt")
    assert run("export", CAMVID, *arguments, "-o", "x.onnx").code == 0
    facts = json.loads(run("info", "x.onnx", "--json").stdout)
    assert (facts["precision"], facts["profile"]) == ("int8", "tensorrt")
    assert len(facts["ranges_sha256"]) == 64
    assert "tensorrt" in run("info", "x.onnx").stdout


def test_verify_prints_the_agreement_of_int8_without_judging_it(run: Run) -> None:
    run("export", CAMVID, "--size", "128x192", "-o", "a.onnx")
    run("export", CAMVID, "--size", "128x192", "--precision", "int8", "-o", "b.onnx")
    outcome = run("verify", "a.onnx", "b.onnx", "--limit", "1")
    assert outcome.code == 0, outcome.stderr
    assert "not gated" in outcome.stderr
    assert run("verify", "a.onnx", "b.onnx", "--limit", "1", "--threshold", "1").code == 5
    run("export", CAMVID, "--size", "128x192", "--precision", "int8", "--inline", "-o", "c.onnx")
    same = run("verify", "b.onnx", "c.onnx", "--limit", "1", "--json", "-")
    assert (same.code, json.loads(same.stdout)["threshold"]) == (0, 0.999)


def test_info_tells_what_a_model_is(run: Run) -> None:
    facts = json.loads(run("info", "fasterseg-student", "--json").stdout)
    assert facts["parameters"] == 3_421_875
    assert facts["macs"] == 27_770_486_784
    assert "conv_2x_downup" in run("info", "fasterseg-student").stdout


def test_verify_passes_equal_engines_and_keeps_the_verdict(run: Run, tmp_path: Path) -> None:
    for name, extra in (("a.onnx", []), ("b.onnx", ["--inline"])):
        run("export", CAMVID, "--size", "256x512", "-o", name, *extra)
    outcome = run("verify", "a.onnx", "b.onnx", "--limit", "2", "--json", "-")
    assert outcome.code == 0, outcome.stderr
    assert json.loads(outcome.stdout)["agreement"] == 1.0
    assert json.loads((tmp_path / "b.onnx.parity.json").read_text())["passed"] is True
    assert json.loads(run("info", "b.onnx", "--json").stdout)["parity"]["passed"] is True


def test_info_refuses_a_damaged_verdict(run: Run, tmp_path: Path) -> None:
    run("export", CAMVID, "--size", "128x192", "-o", "a.onnx")
    for text in ("", "[]", "[" * 100_000, "\x00"):
        (tmp_path / "a.onnx.parity.json").write_text(text)
        outcome = run("info", "a.onnx")
        assert outcome.code == 4
        assert "a.onnx.parity.json is no verdict" in outcome.stderr
        assert "fasterseg verify" in outcome.stderr


def test_verify_fails_engines_that_differ(run: Run) -> None:
    run("export", CAMVID, "--size", "128x256", "-o", "a.onnx")
    model = onnx.load("a.onnx")
    node = next(n for n in model.graph.node if n.op_type == "NormalizeBGR")
    next(a for a in node.attribute if a.name == "order").ints[:] = [0, 1, 2]
    onnx.save(model, "swapped.onnx")
    outcome = run("verify", "a.onnx", "swapped.onnx", "--limit", "2")
    assert outcome.code == 5
    assert "worst frame" in outcome.stderr


@pytest.mark.torch
def test_verify_compares_backends_of_a_model(run: Run) -> None:
    pytest.importorskip("torch", reason="torch not installed")
    outcome = run("verify", "torch", "onnxruntime", "--size", "128x256", "--limit", "1")
    assert outcome.code == 0, outcome.stderr
    assert "torch/cpu, fp32" in outcome.stderr


def test_streets_renders_a_clip_with_its_class_maps(run: Run, tmp_path: Path) -> None:
    arguments = ("--frames", "3", "--size", "64x96", "--labels", "truth")
    assert run("streets", "s.mp4", *arguments).code == 0
    assert len(list((tmp_path / "truth").glob("*.png"))) == 3
    outcome = run("streets", "s.mp4", "--frames", "3")
    assert outcome.code == 2
    assert "--overwrite" in outcome.stderr


@pytest.mark.torch
def test_an_official_checkpoint_becomes_a_model(run: Run, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch not installed")
    from tests.unit.nn.test_weights import made_state

    torch.save(made_state(), tmp_path / "weights1.pt")
    outcome = run("models", "import", "weights1.pt", "--arch", "student", "--name", "mine")
    assert outcome.code == 0, outcome.stderr
    assert "mine" in run("models", "list").stdout
    shown = json.loads(run("models", "show", "mine", "--json").stdout)
    assert shown["trained"] is True
    assert shown["classes"][0] == "road"
    assert run("export", "mine", "--size", "64x96", "-o", "m.onnx").code == 0
    assert run("models", "import", "weights1.pt", "--arch", "student", "--name", "mine").code == 2
    assert run("models", "import", "weights1.pt", "--arch", "teacher", "--name", "t").code == 4
    assert run("models", "remove", "mine").code == 0
    assert run("models", "show", "mine").code == 2


def test_models_list_marks_the_default(run: Run) -> None:
    lines = run("models", "list").stdout.splitlines()
    assert any(line.startswith(f"{CAMVID} *") for line in lines)


def test_version_is_printed(run: Run) -> None:
    import fasterseg

    outcome = run("--version")
    assert outcome.code == 0
    assert fasterseg.__version__ in outcome.stdout
