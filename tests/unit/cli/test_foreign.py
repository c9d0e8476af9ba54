"""`fasterseg export --from`: another network's file, from the command line to class maps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import fasterseg
from fasterseg.labels import CITYSCAPES
from fasterseg.types import Size
from tests.unit.cli.conftest import Outcome, Run
from tests.unit.graph.test_foreign import enlarged, network, two_outputs, with_argmax
from tests.unit.graph.test_foreign import run as run_onnx

pytestmark = pytest.mark.onnx

SIZE = Size(64, 96)


@pytest.fixture
def names(tmp_path: Path) -> Path:
    """Five classes, as `network` has."""
    (tmp_path / "names.txt").write_text("sky\nroad\ncar\ntree\npole\n")
    return tmp_path / "names.txt"


def save(folder: Path, model: onnx.ModelProto, name: str = "net.onnx") -> Path:
    onnx.save(model, folder / name)
    return folder / name


def picture(size: Size = SIZE) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (*size, 3), np.uint8)


def wrap(run: Run, *options: object) -> Outcome:
    """Wrap net.onnx into w.onnx; --classes names.txt and --size 64x96 unless told."""
    chosen = [str(option) for option in options]
    for option, value in (("--classes", "names.txt"), ("--size", str(SIZE))):
        if option not in chosen:
            chosen += [option, value]
    return run("export", "--from", "net.onnx", "-o", "w.onnx", *chosen)


@pytest.mark.parametrize("stride", [1, 4, 8])
@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_labels_are_those_of_the_computation_by_hand(
    run: Run, tmp_path: Path, names: Path, stride: int, order: str
) -> None:
    model = network(stride=stride)
    save(tmp_path, model)
    told = ("--mean", "0.1,0.2,0.3", "--std", "0.5, 0.6, 0.7", "--channel-order", order)
    outcome = wrap(run, *told, "--scale", stride)
    assert outcome.code == 0, outcome.stderr
    assert outcome.stdout.strip() == "w.onnx"
    frame = picture()
    channels = frame if order == "bgr" else frame[..., ::-1]
    normal = ((channels / 255 - [0.1, 0.2, 0.3]) / [0.5, 0.6, 0.7]).astype(np.float32)
    logits = run_onnx(model, "picture", np.ascontiguousarray(normal.transpose(2, 0, 1)[None]))
    with fasterseg.load("w.onnx") as segmenter:
        mask = segmenter(frame).mask
    assert np.mean(mask == enlarged(logits, stride)[0]) > 0.999


def test_a_wrapped_file_says_what_it_is(run: Run, tmp_path: Path, names: Path) -> None:
    save(tmp_path, network())
    assert wrap(run, "--mean", "0", "--std", "1/255", "--channel-order", "bgr").code == 0
    facts = json.loads(run("info", "w.onnx", "--json").stdout)
    assert facts["labels"]["classes"] == ["sky", "road", "car", "tree", "pole"]
    assert (facts["name"], facts["size"], facts["precision"]) == ("net", "64x96", "fp32")
    assert (facts["mean"], facts["channel_order"]) == ([0, 0, 0], "bgr")
    assert facts["std"] == pytest.approx([1 / 255] * 3)
    assert facts["genotype"] is None
    assert "5: sky, road" in run("info", "w.onnx").stdout


def test_the_size_a_file_is_fixed_to_need_not_be_told(
    run: Run, tmp_path: Path, names: Path
) -> None:
    save(tmp_path, network(dims=(2, 3, 64, 96)))
    outcome = run(
        "export", "--from", "net.onnx", "--classes", "names.txt", "--batch", "2"
    )  # fmt: skip
    assert outcome.code == 0, outcome.stderr
    assert outcome.stdout.strip() == "engines/build/net_64x96_b2_fp32.onnx"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--classes", "cityscapes"], r"net.onnx has 5 classes, --classes names 19"),
        (["--classes", "nothing"], "unknown label set 'nothing'"),
        (["--mean", "123.675,116.28,103.53", "--std", "58.395,57.12,57.375"],
         "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"),
        (["--mean", "0.5,0.5"], "--mean 0.5,0.5 is not one number or three"),
        (["--mean", "nan"], "--mean nan is not"),
        (["--std", "0"], "above 0"),
        (["--std", "1/0"], "--std 1/0 is not"),
        (["--channel-order", "RGB"], "--channel-order RGB is not one of rgb, bgr"),
        (["--layout", "hwc"], "not one of nchw, nhwc"),
        (["--layout", "nhwc"], "leave --layout out"),
        (["--scale", "2"], "--scale 2 is not one of 8, 4, 1, labels"),
        (["--scale", "4"], "They are 8 times smaller, not 4"),
        (["--scale", "labels"], "is for class ids"),
        (["--logits", "x"], "makes no value 'x'; its outputs are logits"),
        (["--precision", "fp16"], "--precision: only for models of ours"),
        (["--dynamic", "--profile", "cpu"], "--profile, --dynamic: only for models"),
        (["--stages", "network"], "--stages network is not for --from"),
        (["--size", "64"], "not HEIGHTxWIDTH"),
        (["fasterseg-camvid"], "give a model, or a network to wrap"),
    ],
)  # fmt: skip
def test_what_cannot_be_right_is_named_and_nothing_is_written(
    run: Run, tmp_path: Path, names: Path, options: list[str], message: str
) -> None:
    save(tmp_path, network())
    outcome = wrap(run, *options)
    assert (outcome.code, outcome.stdout) == (2, "")
    assert message in outcome.stderr
    assert not (tmp_path / "w.onnx").exists()


def test_what_is_missing_is_asked_for(run: Run, tmp_path: Path, names: Path) -> None:
    save(tmp_path, network(classes=11))
    for arguments, message in (
        (("--from", "net.onnx", "--size", "64x96"), "11 classes and does not name them"),
        (("--from", "net.onnx", "--size", "64x96"), "--classes camvid"),
        (("--from", "net.onnx", "--classes", "camvid"), "--size HxW"),
        ((), "name a model or a recipe"),
        (("--mean", "0", "--scale", "8"), "--mean, --scale: only with --from"),
        (("net.onnx",), "fasterseg export --from net.onnx"),
    ):
        outcome = run("export", *arguments)
        assert (outcome.code, message in outcome.stderr) == (2, True), outcome.stderr


def test_files_are_not_replaced_unasked_nor_the_network_itself(
    run: Run, tmp_path: Path, names: Path
) -> None:
    file = save(tmp_path, network())
    before = file.read_bytes()
    (tmp_path / "w.onnx").write_bytes(b"mine")
    refused = wrap(run)
    assert (refused.code, (tmp_path / "w.onnx").read_bytes()) == (2, b"mine")
    assert "--overwrite" in refused.stderr
    assert wrap(run, "--overwrite").code == 0
    itself = run(
        "export", "--from", "net.onnx", "-o", "net.onnx", "--overwrite", "--classes", "names.txt"
    )
    assert "is the network itself" in itself.stderr
    assert file.read_bytes() == before
    wrong = run("export", "--from", "net.onnx", "-o", "w.engine", "--classes", "names.txt")
    assert "does not end in .onnx" in wrong.stderr


def test_a_file_of_ours_needs_no_wrapping(run: Run, tmp_path: Path, names: Path) -> None:
    save(tmp_path, network())
    assert wrap(run).code == 0
    outcome = run("export", "--from", "w.onnx", "--classes", "names.txt", "-o", "x.onnx")
    assert outcome.code == 2
    assert "needs no wrapping. Run it: fasterseg-infer INPUT --engine w.onnx" in outcome.stderr


@pytest.mark.parametrize(("content", "message"), [(None, "no file"), (b"no ONNX", "as an ONNX")])
def test_what_is_no_network_is_told(
    run: Run, tmp_path: Path, names: Path, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "net.onnx").write_bytes(content)
    outcome = wrap(run)
    assert (outcome.code, message in outcome.stderr) == (4, True)


def test_a_network_that_does_not_run_is_not_written(run: Run, tmp_path: Path, names: Path) -> None:
    model = network(stride=1)
    model.graph.node[0].domain = "somebody"
    model.opset_import.append(helper.make_opsetid("somebody", 1))
    model.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 5, "h", "w"])
    )
    save(tmp_path, model)
    outcome = wrap(run, "--scale", "1")
    assert outcome.code == 4
    assert "does not run net.onnx at 64x96" in outcome.stderr
    assert not (tmp_path / "w.onnx").exists()


def test_a_scale_that_shapes_cannot_contradict_is_found_out_by_running(
    run: Run, tmp_path: Path, names: Path
) -> None:
    """Sizes that only the picture's values decide are no business of shape inference."""
    model = network(stride=8)
    model.graph.node[0].output[0] = "conv"
    model.graph.node.extend(
        [
            helper.make_node("NonZero", ["picture"], ["found"]),
            helper.make_node("Shape", ["found"], ["count"], start=1),
            helper.make_node("Div", ["count", "count"], ["ones"]),
            helper.make_node("Mul", ["sizes", "ones"], ["same"]),
            helper.make_node("Reshape", ["conv", "same"], ["logits"]),
        ]
    )
    sizes = np.array([1, 5, 8, 12], np.int64)
    model.graph.initializer.append(numpy_helper.from_array(sizes, "sizes"))
    model.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 5, "i", "j"])
    )
    save(tmp_path, model)
    assert "name the scale" in wrap(run).stderr
    assert "the scale named is not that of its logits" in wrap(run, "--scale", "4").stderr
    assert wrap(run, "--scale", "8").code == 0


def test_ids_beyond_the_names_are_found_out_by_running(
    run: Run, tmp_path: Path, names: Path
) -> None:
    save(tmp_path, with_argmax())
    assert wrap(run, "--scale", "labels").code == 0
    (tmp_path / "two.txt").write_text("sky\nroad\n")
    outcome = wrap(run, "--scale", "labels", "--classes", "two.txt", "--overwrite")
    assert outcome.code == 2
    assert "Name them all" in outcome.stderr


def test_one_of_several_outputs_is_named(run: Run, tmp_path: Path, names: Path) -> None:
    save(tmp_path, two_outputs())
    assert "--logits NAME" in wrap(run).stderr
    assert wrap(run, "--logits", "aux").code == 0


def test_half_precision_weights_behind_float_ends_run(
    run: Run, tmp_path: Path, names: Path
) -> None:
    save(tmp_path, network(kind=TensorProto.FLOAT16))
    assert wrap(run).code == 0
    assert json.loads(run("info", "w.onnx", "--json").stdout)["precision"] == "fp16"


def test_a_network_that_takes_bytes_has_no_mean(run: Run, tmp_path: Path, names: Path) -> None:
    save(tmp_path, network(kind=TensorProto.UINT8))
    refused = wrap(run, "--mean", "0.5")
    assert refused.code == 2
    assert "takes bytes" in refused.stderr
    assert wrap(run).code == 0
    assert json.loads(run("info", "w.onnx", "--json").stdout)["mean"] == [0, 0, 0]


def test_inlined_and_plain_files_agree(run: Run, tmp_path: Path) -> None:
    save(tmp_path, network(classes=19))
    assert wrap(run, "--classes", "cityscapes").code == 0
    inlined = ("--classes", "cityscapes", "--size", "64x96", "--inline", "-o", "i.onnx")
    assert run("export", "--from", "net.onnx", *inlined).code == 0
    assert {node.domain for node in onnx.load("i.onnx").graph.node} == {""}
    outcome = run("verify", "w.onnx", "i.onnx", "--limit", "2", "--json", "-")
    assert json.loads(outcome.stdout)["agreement"] == 1.0


def test_videos_and_pictures_go_through_it(run: Run, tmp_path: Path, names: Path) -> None:
    import cv2

    save(tmp_path, network())
    assert wrap(run).code == 0
    cv2.imwrite(str(tmp_path / "a.png"), picture(Size(50, 70)))
    outcome = run(
        "infer", "a.png", "maps", "--engine", "w.onnx", "--format", "classmap", "--json", "-"
    )
    assert outcome.code == 0, outcome.stderr
    assert "sky" in outcome.stdout
    (file,) = (tmp_path / "maps").glob("*.png")
    mask = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    assert mask is not None
    assert mask.shape == (50, 70)
    assert int(mask.max()) < 5


def test_it_is_scored_on_a_data_set_of_its_classes(run: Run, tmp_path: Path) -> None:
    import cv2

    save(tmp_path, network(classes=19))
    assert wrap(run, "--classes", "cityscapes").code == 0
    classes = ", ".join(f'"{name}"' for name in CITYSCAPES.classes)
    (tmp_path / "d.toml").write_text(
        f'name = "d"\nsize = "64x96"\nclasses = [{classes}]\n'
        '[val]\nimages = "images/*.png"\nlabels = "labels/*.png"\n'
    )
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    frame = picture()
    cv2.imwrite(str(tmp_path / "images/a.png"), frame)
    with fasterseg.load("w.onnx") as segmenter:
        cv2.imwrite(str(tmp_path / "labels/a.png"), segmenter(frame).mask)
    outcome = run("bench", "accuracy", "--dataset", "d.toml", "--engine", "w.onnx", "--json", "-")
    assert outcome.code == 0, outcome.stderr
    report = json.loads(outcome.stdout)
    assert (report["miou"], report["model"]) == (100.0, "net")


@pytest.mark.parametrize("options", [(), ("--inline",), ("--stages", "logits8")])
def test_openvino_labels_as_onnx_runtime_does(
    run: Run, tmp_path: Path, names: Path, options: tuple[str, ...]
) -> None:
    pytest.importorskip("openvino", reason="openvino not installed: fasterseg[openvino]")
    save(tmp_path, network())
    assert wrap(run, *options).code == 0
    masks = []
    for backend in ("onnxruntime", "openvino"):
        with fasterseg.load("w.onnx", engine=backend) as segmenter:
            masks.append(segmenter(picture()).mask.copy())
    assert np.mean(masks[0] == masks[1]) > 0.999
