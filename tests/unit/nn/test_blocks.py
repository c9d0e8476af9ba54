"""Blocks equal the original's operators; slimmable blocks equal blocks with sliced weights."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch not installed")

from fasterseg.arch.operators import CANDIDATES, OpSpec, Stride  # noqa: E402
from fasterseg.errors import UsageError  # noqa: E402
from fasterseg.nn.blocks import (  # noqa: E402
    Block,
    SharedBlock,
    SlimmableBlock,
    divisible_by_8,
)
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


def shake(module: Any, seed: int) -> None:
    """Random parameters and statistics, so that nothing is the identity."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.1, generator=generator)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5, generator=generator)


def block_of(spec: OpSpec, arrays: dict[str, Any]) -> Block:
    """A fixed block that holds these arrays."""
    block = Block(spec).eval()
    counters = {n: v for n, v in block.state_dict().items() if n.endswith("num_batches_tracked")}
    block.load_state_dict({**counters, **arrays})
    return block


@pytest.mark.parametrize("op", CANDIDATES)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("width", WIDTHS)
def test_slimmable_block_is_the_block_with_sliced_weights(
    op: str, stride: Stride, width: int
) -> None:
    slim = SlimmableBlock(OpSpec(op, 48, 96, stride, 16, 24), WIDTHS).eval()
    shake(slim, seed=width)
    channels = 96 * width // 12
    index = WIDTHS.index(width)
    full = slim.state_dict()
    # A fixed skip of as many channels as before is the identity, a slimmable one never is.
    for width_in in (w for w in WIDTHS if not (op == "skip" and 4 * w == channels)):
        spec = OpSpec(op, 4 * width_in, channels, stride, 16, 24)
        arrays = {}
        for name, tensor in Block(spec).state_dict().items():
            module, _, leaf = name.partition(".")
            if leaf == "num_batches_tracked":
                continue
            if op == "skip":
                source = f"norms.{index}.{leaf}" if module == "bn" else name
            elif module.startswith("bn"):
                source = f"conv{module[2:]}.norms.{index}.{leaf}"
            else:
                source = f"{module}.conv.weight"
            part = full[source]
            arrays[name] = part[: tensor.shape[0], : tensor.shape[1]] if part.ndim == 4 else part
        x = torch.randn(1, 4 * width_in, 16, 24)
        with torch.inference_mode():
            torch.testing.assert_close(slim(x, width), block_of(spec, arrays)(x))


PLACES: dict[str, tuple[list[list[int]], list[int]]] = {
    # operator -> channels of each input, channels of the output
    **{op: ([[8 * w for w in WIDTHS]], [8 * w for w in WIDTHS]) for op in CANDIDATES},
    "squeeze": ([[16 * w for w in WIDTHS]], [8 * w for w in WIDTHS]),
    "fuse": ([[8 * w for w in (4, 8, 12)], [8 * w for w in WIDTHS]], [32, 64, 96]),
    "ffm": ([[32, 48], [32, 48]], [64, 96]),
    "head": ([[64, 96]], [7]),
}


@pytest.mark.parametrize("op", PLACES)
@pytest.mark.parametrize("stride", [1, 2])
def test_shared_block_is_the_block_with_its_arrays_for_all_channels(
    op: str, stride: Stride
) -> None:
    sources, outs = PLACES[op]
    shared_block = SharedBlock(op, stride, sources, outs).eval()
    shake(shared_block, seed=1)
    for channels, out in product(product(*sources), outs):
        if op == "skip" and stride == 1 and channels == (out,):
            continue  # the identity in a fixed network
        inputs = [torch.randn(1, count, 6, 8) for count in channels]
        block = block_of(
            OpSpec(op, sum(channels), out, stride, 6, 8), shared_block.arrays(channels, out)
        )
        with torch.inference_mode():
            torch.testing.assert_close(shared_block(inputs, out), block(*inputs))


def test_a_map_keeps_its_columns_however_narrow_the_one_before_it_is() -> None:
    fuse = SharedBlock("fuse", 1, [[32, 64], [48, 96]], [32, 64])
    full = fuse.get_parameter("conv1.conv.weight")
    assert tuple(full.shape) == (64, 64 + 96, 3, 3)
    for squeezed, tap, out in product((32, 64), (48, 96), (32, 64)):
        weight = fuse.arrays([squeezed, tap], out)["conv1.weight"]
        assert torch.equal(weight[:, :squeezed], full[:out, :squeezed])
        assert torch.equal(weight[:, squeezed:], full[:out, 64 : 64 + tap])


def test_a_hidden_convolution_has_room_for_the_most_hidden_channels() -> None:
    # 288 channels have 144 hidden ones, 240 have 240.
    head = SharedBlock("head", 1, [[240, 288]], [5]).eval()
    shake(head, seed=2)
    assert tuple(head.get_parameter("conv1.conv.weight").shape) == (240, 288, 3, 3)
    for channels in (240, 288):
        x = torch.randn(1, channels, 4, 4)
        block = block_of(OpSpec("head", channels, 5, 1, 4, 4), head.arrays([channels], 5))
        with torch.inference_mode():
            torch.testing.assert_close(head([x], 5), block(x))


def test_each_number_of_channels_has_statistics_of_its_own() -> None:
    conv = SharedBlock("conv", 1, [[16]], [16, 24]).train()
    conv([torch.randn(2, 16, 6, 6)], 24)
    narrow, wide = (conv.arrays([16], out)["bn1.running_mean"] for out in (16, 24))
    assert torch.equal(narrow, torch.zeros(16))
    assert not torch.equal(wide, torch.zeros(24))


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
