"""Single operators as tables time them: the same numbers as the reference, nothing but the
operator between two parts, and memory that is given back."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from fasterseg.arch.genotype import Branch
from fasterseg.arch.operators import OPERATORS, macs
from fasterseg.arch.plan import plan
from fasterseg.arch.single import PARTS, Part, Single, is_nothing, single
from fasterseg.arch.space import Placed, SearchSpace
from fasterseg.errors import EngineError, UsageError
from fasterseg.graph.emit import EmitOptions
from fasterseg.graph.weights import seeded_weights
from fasterseg.runtime.base import DeviceTimed
from fasterseg.types import Size
from tests.fake_torch_cuda import FakeTorchCuda, host_port

torch = pytest.importorskip("torch", reason="torch not installed")

from fasterseg.nn import cuda_port, snippet  # noqa: E402
from fasterseg.nn.fused import Variant  # noqa: E402
from fasterseg.nn.parts import FusedPart, ReferencePart  # noqa: E402
from fasterseg.nn.schedule import schedule  # noqa: E402
from fasterseg.nn.snippet import CudaSnippet, conditions, open_snippet  # noqa: E402

pytestmark = pytest.mark.torch

SIZE = Size(64, 128)
SPACE = SearchSpace(widths=(4, 6), stem_widths=(4,), head_widths=(4,))
PLAIN = Variant(resize="torch")
STEP_MS = 10.0
REPEATS = 4


def one_of_each() -> list[Placed]:
    """The smallest operator of every kind and stride that has something to run."""
    found: dict[tuple[str, int], Placed] = {}
    for placed in sorted(SPACE.operators(SIZE), key=lambda placed: macs(placed.spec)):
        if not is_nothing(placed.spec):
            found.setdefault((placed.spec.op, placed.spec.stride), placed)
    return list(found.values())


EACH = one_of_each()


def fused(of: Single, batch: int = 1, variant: Variant = PLAIN) -> FusedPart:
    return FusedPart(of, seeded_weights(of.plan), "fp32", "cpu", batch, variant=variant)


def reference(of: Single, batch: int = 1) -> ReferencePart:
    return ReferencePart(of, seeded_weights(of.plan), batch)


def kinds(part: FusedPart) -> Counter[str]:
    return Counter(launch.kind for launch, _, _ in part._steps)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTorchCuda]:
    """A GPU without our kernels, and fewer repeats for its slow clock."""
    monkeypatch.setattr(snippet, "_kernels", lambda: None)
    monkeypatch.setattr(snippet, "REPEATS", REPEATS)
    with host_port() as made:
        yield made


def test_there_is_an_operator_of_every_kind() -> None:
    assert {placed.spec.op for placed in EACH} == set(OPERATORS)


@pytest.mark.parametrize("placed", EACH, ids=lambda placed: placed.spec.key())
@pytest.mark.parametrize("part", PARTS)
def test_launches_give_what_the_reference_gives(placed: Placed, part: Part) -> None:
    of = single(placed, SIZE, part)
    expected, found = reference(of, batch=2).run(), fused(of, batch=2).run()
    assert len(found) == len(expected) == len(of.ends)
    for one, other in zip(found, expected, strict=True):
        if one.dtype == torch.uint8:
            assert one.shape == (2, *SIZE)
            assert (one == other).float().mean() > 0.999
            continue
        channels = other.shape[1]
        assert float(other.abs().max()) > 0.1
        assert torch.allclose(one[:, :channels], other, rtol=1e-4, atol=1e-4)
        assert not one[:, channels:].any(), "channels beyond the operator's are 0"


@pytest.mark.parametrize("placed", EACH, ids=lambda placed: placed.spec.key())
def test_inside_is_around_and_the_operator(placed: Placed) -> None:
    alone, inside, around = (kinds(fused(single(placed, SIZE, part))) for part in PARTS)
    assert inside == alone + around


def test_a_zoomed_variant_has_zoomed_operators() -> None:
    [placed] = [p for p in EACH if (p.spec.op, p.spec.stride) == ("conv_2x_downup", 1)]
    of = single(placed, SIZE, "alone")
    assert kinds(fused(of, variant=Variant(zoomed=True, resize="torch"))) == {"zoomed": 1}


def test_operators_of_a_network_add_up_to_its_launches() -> None:
    branch = Branch(("conv_2x", "conv_2x_downup", "conv"), (8, 16, 32), (4, 6))
    network = plan(SPACE.genotype((branch,)), SIZE)
    total: Counter[str] = Counter()
    for node in network.nodes:
        sources = [network.nodes[source].spec for source in node.inputs]
        maps = tuple((spec.out_channels, spec.output_size) for spec in sources)
        total += kinds(fused(single(Placed(node.spec, maps), SIZE, "alone")))
    assert total == Counter(launch.kind for launch in schedule(network).launches)


def test_what_is_fed_is_the_same_every_time_and_no_constant() -> None:
    of = single(EACH[0], SIZE, "inside")
    first, second = (fused(of).run()[0] for _ in range(2))
    assert torch.equal(first, second)
    assert float(first.std()) > 0


def test_on_a_cpu_operators_run_and_are_not_timed_by_a_device() -> None:
    for placed in EACH:
        for part in PARTS:
            opened = open_snippet(
                single(placed, SIZE, part), EmitOptions(), "cpu", None, precision="fp32"
            )
            assert not isinstance(opened, DeviceTimed)
            opened.run()
            opened.close()


def opened_on_fake(of: Single, batch: int = 1) -> CudaSnippet:
    made = open_snippet(of, EmitOptions(batch=batch), "cuda", None, precision="fp32")
    assert isinstance(made, CudaSnippet)
    return made


@pytest.mark.parametrize("op", ["conv_2x", "conv_downup", "fuse", "head", "input", "output"])
def test_by_the_devices_clock_inside_less_around_is_the_operator(
    fake: FakeTorchCuda, op: str
) -> None:
    placed = next(placed for placed in EACH if placed.spec.op == op)
    times: dict[Part, float] = {}
    for part in PARTS:
        opened = opened_on_fake(single(placed, SIZE, part))
        taken = opened.time_on_device(3)
        assert len(taken) == 3
        assert taken[0] == pytest.approx(taken[1]) == pytest.approx(taken[2])
        times[part] = taken[0]
        opened.close()
    assert times["around"] >= STEP_MS, "no graph is empty"
    assert times["inside"] - times["around"] == pytest.approx(times["alone"])


def test_an_operator_is_captured_so_often_and_launched_as_one(fake: FakeTorchCuda) -> None:
    calls: list[int] = []
    opened = CudaSnippet(lambda: calls.append(1))
    assert len(calls) == 1 + REPEATS, "once outside of the capture"
    fake.log.clear()
    opened.run()
    assert fake.log == ["replay", "synchronize"]
    assert len(calls) == 1 + REPEATS


def test_runs_are_enqueued_before_the_host_waits(fake: FakeTorchCuda) -> None:
    opened = opened_on_fake(single(EACH[0], SIZE, "alone"))
    fake.log.clear()
    opened.time_on_device(4)
    assert fake.log == ["record", *["replay", "record"] * 4, "synchronize"]


def test_close_gives_back_graph_maps_weights_and_stream(fake: FakeTorchCuda) -> None:
    opened = opened_on_fake(single(EACH[0], SIZE, "inside"))
    part = weakref.ref(opened._work.__self__)  # type: ignore[union-attr]
    assert part() is not None
    opened.close()
    gc.collect()
    assert part() is None
    assert set(fake.pools.values()) == {0}
    assert cuda_port._HELD == {}
    assert fake.log[-1] == "empty_cache", "after all of it is free"


@pytest.mark.parametrize("call", ["capture_begin", "synchronize"])
def test_what_cannot_be_captured_leaves_nothing_behind(fake: FakeTorchCuda, call: str) -> None:
    fake.failing[call] = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")
    with pytest.raises(EngineError, match="smaller --size"):
        opened_on_fake(single(EACH[0], SIZE, "alone"))
    fake.failing.clear()
    assert cuda_port._HELD == {}
    assert not any(fake.pools.values())
    assert not fake.capturing


def test_a_table_says_what_its_times_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert conditions("cpu", "fp32") == {"tail": "torch"}
    with pytest.raises(UsageError, match="fp32, not fp16"):
        conditions("cpu", "fp16")
    monkeypatch.setattr(snippet, "_kernels", lambda: None)
    found = conditions("cuda", "fp16")
    assert found == {
        "tail": "torch", "clock": "device", "variant": "lanes1+torch-resize", "repeats": 32,
    }  # fmt: skip
    kernels: Any = object()
    monkeypatch.setattr(snippet, "_kernels", lambda: kernels)
    found = conditions("cuda", "fp16")
    assert (found["tail"], found["variant"]) == ("kernel", "lanes1")
    assert conditions("cuda", "fp32")["variant"] == "lanes1+torch-resize"
