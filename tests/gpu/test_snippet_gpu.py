"""Single operators on the GPU at hand: right, timed by its clock, and gone when they are closed."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import pytest

from fasterseg.arch.operators import OPERATORS, macs
from fasterseg.arch.single import PARTS, is_nothing, single
from fasterseg.arch.space import Placed, SearchSpace
from fasterseg.bench.begin import Request, begin
from fasterseg.bench.calibrate import judge, measure_nets
from fasterseg.bench.draw import draw
from fasterseg.bench.ops import Progress, measure_rows
from fasterseg.bench.snippets import snippet_opener
from fasterseg.bench.tables import TableFile
from fasterseg.bench.timing import DEVICE_NET, DEVICE_ROW
from fasterseg.bench.whole import deployed
from fasterseg.graph.emit import EmitOptions
from fasterseg.graph.weights import seeded_weights
from fasterseg.types import DeviceInfo, Size

torch = pytest.importorskip("torch", reason="torch not installed")

from fasterseg.nn.parts import FusedPart, ReferencePart  # noqa: E402
from fasterseg.nn.snippet import CudaSnippet, _kernels, open_snippet, serial  # noqa: E402

pytestmark = pytest.mark.gpu

SIZE = Size(128, 256)
SPACE = SearchSpace(
    layers=4, ops=("conv", "skip"), widths=(4, 6), stem_widths=(4,), head_widths=(4,), num_classes=5
)
ALL = SearchSpace(widths=(4, 6), stem_widths=(4,), head_widths=(4,))


def one_of_each() -> list[Placed]:
    """The smallest operator of every kind and stride that has something to run."""
    found: dict[tuple[str, int], Placed] = {}
    for placed in sorted(ALL.operators(SIZE), key=lambda placed: macs(placed.spec)):
        if not is_nothing(placed.spec):
            found.setdefault((placed.spec.op, placed.spec.stride), placed)
    return list(found.values())


def opened(placed: Placed, part: str) -> CudaSnippet:
    of = single(placed, SIZE, part)  # type: ignore[arg-type]
    made = open_snippet(of, EmitOptions(batch=2), "cuda", None, "fp16")
    assert isinstance(made, CudaSnippet)
    return made


def test_half_precision_operators_are_those_of_the_reference() -> None:
    kernels = _kernels()
    assert {placed.spec.op for placed in one_of_each()} == set(OPERATORS)
    for placed in one_of_each():
        of = single(placed, SIZE, "alone")
        weights = seeded_weights(of.plan)
        variant = serial("fp16", kernels)
        part = FusedPart(of, weights, "fp16", "cuda", 2, variant=variant, kernels=kernels)
        [found], [expected] = part.run(), ReferencePart(of, weights, 2).run()
        if found.dtype == torch.uint8:
            assert (found.cpu() == expected).float().mean() > 0.99, placed.spec.key()
            continue
        given = found[:, : expected.shape[1]].float().cpu()
        off = (given - expected).abs().max() / expected.abs().max()
        assert off < 0.01, (placed.spec.key(), float(off))


def test_every_part_is_timed_and_inside_is_no_shorter_than_around() -> None:
    for placed in one_of_each():
        least = {}
        for part in PARTS:
            made = opened(placed, part)
            made.time_on_device(20)
            least[part] = min(made.time_on_device(50))
            made.close()
        assert 0 < least["around"] <= least["inside"] + 2e-4, (placed.spec.key(), least)
        assert 0 < least["alone"] < 1.0, (placed.spec.key(), least)


def test_memory_of_a_row_is_given_back() -> None:
    large = max(one_of_each(), key=lambda placed: macs(placed.spec))
    made = opened(large, "inside")
    made.run()
    made.close()
    del made
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    for _ in range(5):
        made = opened(large, "inside")
        made.run()
        made.close()
        del made
    gc.collect()
    assert torch.cuda.memory_reserved() <= before


def test_a_table_is_measured_and_its_networks_by_the_same_clock(tmp_path: Path) -> None:
    request = Request(SIZE, "torch", device="cuda", path=tmp_path / "t.json").resolved()
    assert request.precision == "fp16"
    device = DeviceInfo("gpu", torch.cuda.get_device_name(), "x86_64", None, None, "Linux", {})
    file = replace(begin(request, device, SPACE), protocol=replace(DEVICE_ROW, min_s=0.002))
    drawn = draw(SPACE, SIZE, 0, calibration=6, held_out=6)

    def ignore(progress: Progress) -> None:
        """Nobody looks."""

    opener = snippet_opener("torch", "cuda", None, "fp16")
    assert measure_rows(file, SPACE.operators(SIZE), opener, ignore) == 0
    open_net, frames = deployed(file)
    quick = replace(DEVICE_NET, min_s=0.005)
    assert measure_nets(file, drawn, open_net, frames, ignore, protocol=quick) == 0
    report = judge(file, drawn)
    assert report["repeat"]["mean"] < 0.1
    file.save()
    assert TableFile.load(file.path).statistics == ("p50", "min")
