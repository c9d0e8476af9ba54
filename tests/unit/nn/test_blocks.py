"""Blocks equal the original's operators; slimmable blocks equal blocks with sliced weights."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch not installed")

from fasterseg.arch.operators import CANDIDATES, OpSpec, Stride  # noqa: E402
from fasterseg.errors import UsageError  # noqa: E402
from fasterseg.nn.blocks import Block, SlimmableBlock, divisible_by_8  # noqa: E402
from tests.parity import fill, fixture_input  # noqa: E402
from tests.shared import shared  # noqa: E402

pytestmark = pytest.mark.torch

WIDTHS = (4, 6, 8, 10, 12)


def cases(kind: str) -> list[dict[str, Any]]:
    index = json.loads(shared("reference/parity/ops-index.json").read_text())
    return [case for case in index["cases"] if case["kind"] == kind]


def fill_module(module: Any, prefix: str, rename: dict[str, str] | None = None) -> None:
    """Fill a module by the fixtures' rule; `rename` maps parts of our keys to theirs."""
    state = module.state_dict()
    for key, tensor in state.items():
        theirs = key
        for ours, other in (rename or {}).items():
            theirs = theirs.replace(ours, other)
        tensor.copy_(torch.from_numpy(np.asarray(fill(prefix + theirs, tuple(tensor.shape)))))


def test_every_plain_operator_equals_the_originals() -> None:
    outputs = np.load(shared("reference/parity/ops.npz"))
    checked = 0
    for case in cases("plain"):
        height, width = case["size"]
        spec = OpSpec(
            case["op"], case["in_ch"], case.get("out_ch", 16), case["stride"], height, width
        )
        if "error" in case:
            with pytest.raises(UsageError, match="even"):
                Block(spec)
            continue
        block = Block(spec).eval()
        fill_module(block, f"ops/{case['op']}/s{case['stride']}/")
        x = torch.from_numpy(fixture_input(case["input_key"], (2, case["in_ch"], height, width)))
        with torch.inference_mode():
            y = block(x).numpy()
        assert y.shape == tuple(case["out_shape"])
        assert np.abs(y - outputs[case["out"]]).max() <= 1e-5, case
        checked += 1
    assert checked >= 18


def test_every_slimmable_operator_equals_the_originals() -> None:
    outputs = np.load(shared("reference/parity/ops.npz"))
    checked = 0
    for case in cases("slim"):
        width_in, width_out = case["ratio_twelfths"]
        key, _, shape_text = case["input_key"].rpartition("/")
        shape = tuple(int(n) for n in shape_text.split("x"))
        spec = OpSpec(case["op"], case["max_in"], case["max_out"], case["stride"], *shape[2:])
        block = SlimmableBlock(spec, WIDTHS).eval()
        renames = {"conv1.norms": "bn1.bn", "conv2.norms": "bn2.bn", ".conv.": "."}
        fill_module(block, case["key_prefix"], renames | {"norms": "bn.bn"})
        x = torch.from_numpy(fixture_input(f"{key}/{shape_text}", shape))
        assert shape[1] == divisible_by_8(case["max_in"] * width_in / 12)
        with torch.inference_mode():
            y = block(x, width_out).numpy()
        assert y.shape == tuple(case["out_shape"]), case
        assert np.abs(y - outputs[case["out"]]).max() <= 1e-5, case
        checked += 1
    assert checked >= 20


@pytest.mark.parametrize("op", CANDIDATES)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("width", WIDTHS)
def test_slimmable_block_is_the_block_with_sliced_weights(
    op: str, stride: Stride, width: int
) -> None:
    torch.manual_seed(width)
    slim = SlimmableBlock(OpSpec(op, 48, 96, stride, 16, 24), WIDTHS).eval()
    for parameter in slim.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    channels = 96 * width // 12
    # 40 channels in: a fixed skip of equal widths would be the identity, a slimmable one never is.
    block = Block(OpSpec(op, 40, channels, stride, 16, 24)).eval()
    index = WIDTHS.index(width)
    with torch.no_grad():
        for name, tensor in block.state_dict().items():
            module, _, leaf = name.partition(".")
            if op == "skip":
                source = f"norms.{index}.{leaf}" if module == "bn" else name
            elif module.startswith("bn"):
                source = f"conv{module[2:]}.norms.{index}.{leaf}"
            else:
                source = f"{module}.conv.weight"
            full = slim.state_dict()[source]
            part = full[: tensor.shape[0], : tensor.shape[1]] if full.ndim == 4 else full
            tensor.copy_(part)
    x = torch.randn(1, 40, 16, 24)
    with torch.inference_mode():
        assert torch.allclose(slim(x, width), block(x), atol=1e-5)


def test_convolution_blocks_equal_the_originals() -> None:
    outputs = np.load(shared("reference/parity/ops.npz"))
    index = {case["block"]: case for case in cases("block")}
    case = index["convnorm_k3s2"]
    block = Block(OpSpec("conv", 8, 16, 2, 12, 20)).eval()
    fill_module(block, case["key_prefix"], {"conv1": "conv.0", "bn1": "conv.1"})
    x = torch.from_numpy(fixture_input(case["input_key"], (2, 8, 12, 20)))
    with torch.inference_mode():
        assert np.abs(block(x).numpy() - outputs[case["out"]]).max() <= 1e-5


def test_final_relu_of_a_zoomed_operator_follows_the_way_back_up() -> None:
    block = Block(OpSpec("conv_downup", 8, 8, 1, 12, 20)).eval()
    assert [type(layer.step).__name__ for layer in block.layers] == [
        "Half", "Conv", "Restore", "Relu",
    ]  # fmt: skip
