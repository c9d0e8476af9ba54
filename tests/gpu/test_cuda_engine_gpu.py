"""The fast path of torch on a GPU: labels, order, memory, failures."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="torch not installed")

from fasterseg.arch.plan import plan as lay_out  # noqa: E402
from fasterseg.errors import EngineError, UsageError  # noqa: E402
from fasterseg.graph.emit import EmitOptions  # noqa: E402
from fasterseg.nn import cuda_port  # noqa: E402
from fasterseg.nn.cuda_engine import CudaEngine  # noqa: E402
from fasterseg.nn.engine import TorchEngine  # noqa: E402
from fasterseg.nn.fused import Variant  # noqa: E402
from fasterseg.runtime.base import PIXEL_AGREEMENT  # noqa: E402
from fasterseg.runtime.kernels import KernelLibrary  # noqa: E402
from fasterseg.runtime.model import DEFAULT_MODEL, resolve_model  # noqa: E402
from fasterseg.runtime.store import describe  # noqa: E402
from fasterseg.streets import images  # noqa: E402
from fasterseg.types import Precision, Size  # noqa: E402

pytestmark = [pytest.mark.gpu, pytest.mark.torch]

Frames = NDArray[np.uint8]
SIZE = Size(360, 480)
QUICK = Variant(lanes=2, search=False)
"""Cuts the seconds in which cuDNN times its algorithms."""


@pytest.fixture(scope="module")
def pictures() -> list[Frames]:
    """Streets, all different."""
    return [np.ascontiguousarray(image)[None] for image, _ in images(0, 6, SIZE)]


@pytest.fixture(scope="module")
def right(pictures: list[Frames]) -> list[Frames]:
    """What the reference on the CPU says of them."""
    model = resolve_model(DEFAULT_MODEL)
    network = lay_out(model.genotype, SIZE)
    spec = describe(model, SIZE, EmitOptions())
    reference = TorchEngine.build(network, model.load_weights(network), spec, "cpu", None)
    with closing(reference):
        return [reference.run(picture).copy() for picture in pictures]


def opened(
    precision: Precision = "fp16",
    kernels: KernelLibrary | None = None,
    variant: Variant = QUICK,
    size: Size = SIZE,
    **changes: Any,
) -> CudaEngine:
    model = resolve_model(DEFAULT_MODEL)
    network = lay_out(model.genotype, size)
    spec = replace(describe(model, size, EmitOptions()), precision=precision, **changes)
    return CudaEngine.of(variant, network, model.load_weights(network), spec, kernels)


def agreement(ours: list[Frames], theirs: list[Frames]) -> float:
    return float(np.mean([np.mean(a == b) for a, b in zip(ours, theirs, strict=True)]))


@pytest.mark.parametrize("with_kernels", [True, False], ids=["kernels", "torch"])
@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
def test_trained_labels_are_the_references_on_frames_that_change_with_every_replay(
    precision: Precision, with_kernels: bool, kernels: KernelLibrary,
    pictures: list[Frames], right: list[Frames],
) -> None:  # fmt: skip
    library = kernels if with_kernels else None
    with closing(opened(precision, library)) as engine:
        assert engine.tail == ("kernel" if with_kernels else "torch")
        first = [engine.run(picture).copy() for picture in pictures]
        assert engine.captured is True
        assert agreement(first, right) >= PIXEL_AGREEMENT[precision]
        again = [engine.run(picture).copy() for picture in reversed(pictures)]
        assert agreement(again[::-1], first) == 1.0, "a replay gives what it gave before"


@pytest.mark.parametrize(
    "variant",
    [
        Variant(lanes=1),
        Variant(lanes=2),
        Variant(lanes=2, zoomed=True),
        Variant(lanes=1, resize="torch", search=False),
    ],
    ids=lambda variant: variant.name,
)
def test_every_variant_gives_the_references_labels(
    variant: Variant, kernels: KernelLibrary, pictures: list[Frames], right: list[Frames]
) -> None:
    with closing(opened("fp16", kernels, variant)) as engine:
        labels = [engine.run(picture).copy() for picture in pictures]
        assert agreement(labels, right) >= PIXEL_AGREEMENT["fp16"]
        assert all(ms > 0 for ms in engine.time_on_device(5))


def test_batches_begun_ahead_come_out_in_order(
    kernels: KernelLibrary, pictures: list[Frames]
) -> None:
    with closing(opened(kernels=kernels)) as engine:
        alone = [engine.run(picture).copy() for picture in pictures]
        engine.submit(pictures[0])
        ahead = []
        for following in (*pictures[1:], pictures[0]):
            engine.submit(following)
            with pytest.raises(UsageError, match="collect"):
                engine.submit(following)
            ahead.append(engine.collect().copy())
        assert agreement(ahead, alone) == 1.0
        assert np.array_equal(engine.collect(), alone[0])


def test_another_batch_and_size_are_captured_anew(
    kernels: KernelLibrary, pictures: list[Frames]
) -> None:
    with closing(opened(kernels=kernels, size=SIZE)) as engine:
        engine.spec = replace(engine.spec, size=None, batch=None)
        alone = [engine.run(picture).copy() for picture in pictures[:4]]
        four = engine.run(np.concatenate(pictures[:4]))
        assert np.mean(four == np.concatenate(alone)) >= PIXEL_AGREEMENT["fp16"]
        half = np.ascontiguousarray(pictures[0][:, ::2, ::2])
        assert engine.run(half).shape == (1, 180, 240)
        assert np.array_equal(engine.run(pictures[0]), alone[0])


@pytest.mark.parametrize("own_stream", [False, True])
def test_arrays_on_the_gpu_are_read_and_written_where_they_lie(
    kernels: KernelLibrary, pictures: list[Frames], own_stream: bool
) -> None:
    with closing(opened(kernels=kernels)) as engine:
        alone = [engine.run(picture).copy() for picture in pictures]
        stream = torch.cuda.Stream() if own_stream else torch.cuda.current_stream()
        with torch.cuda.stream(stream):
            for picture, expected in zip(pictures, alone, strict=True):
                given = torch.full((1, *SIZE), 255, dtype=torch.uint8, device="cuda")
                # Not waited for: the engine has to be ordered behind the copy and the fill.
                taken = torch.from_numpy(picture).cuda(non_blocking=True)
                engine.run_on_device(taken, given, stream.cuda_stream)
                taken.zero_()
                assert np.array_equal(given.cpu().numpy(), expected)
        assert np.array_equal(engine.run(pictures[1]), alone[1])


def test_logits_are_near_the_references(kernels: KernelLibrary, pictures: list[Frames]) -> None:
    model = resolve_model(DEFAULT_MODEL)
    network = lay_out(model.genotype, SIZE)
    spec = describe(model, SIZE, EmitOptions())
    reference = TorchEngine.build(network, model.load_weights(network), spec, "cpu", None)
    wanted = reference.run_logits(pictures[0])
    with closing(opened("fp32", kernels)) as engine:
        logits = engine.run_logits(pictures[0])
    assert logits.shape == wanted.shape
    assert np.abs(logits - wanted).max() <= 1e-4 * max(1.0, float(np.abs(wanted).max()))


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Torch may have 2 % of the device."""
    cuda_port.give_back()
    torch.cuda.set_per_process_memory_fraction(0.02)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_memory_that_runs_out_is_told_and_the_engine_goes_on(
    kernels: KernelLibrary, pictures: list[Frames], little_memory: None
) -> None:
    with closing(opened(kernels=kernels)) as engine:
        before = engine.run(pictures[0]).copy()
        engine.spec = replace(engine.spec, batch=None)
        huge = np.repeat(pictures[0], 768, axis=0)
        with pytest.raises(EngineError, match=r"memory ran out.*--batch"):
            engine.run(huge)
        assert np.array_equal(engine.run(pictures[0]), before)
        assert engine.captured is True


def test_two_engines_work_in_two_threads(
    kernels: KernelLibrary, pictures: list[Frames], right: list[Frames]
) -> None:
    problems: list[str] = []

    def work(precision: Precision) -> None:
        try:
            for _ in range(3):
                # Opened and captured beside the other one's replays.
                with closing(opened(precision, kernels)) as engine:
                    for _ in range(10):
                        labels = [engine.run(picture).copy() for picture in pictures]
                    same = agreement(labels, right)
                    if same < PIXEL_AGREEMENT[precision] or not engine.captured:
                        problems.append(f"{precision}: {same:.4%}, captured {engine.captured}")
        except EngineError as error:
            problems.append(f"{precision}: {error}")

    kinds: tuple[Precision, ...] = ("fp16", "bf16")
    threads = [threading.Thread(target=work, args=(precision,)) for precision in kinds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems


def test_memory_comes_back_when_engines_are_closed(
    kernels: KernelLibrary, pictures: list[Frames]
) -> None:
    def use() -> None:
        with closing(opened(kernels=kernels)) as engine:
            for picture in pictures:
                engine.run(picture)
            engine.time_on_device(3)

    def taken() -> tuple[int, int]:
        gc.collect()
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated(), torch.cuda.memory_reserved()

    use()
    # Libraries keep what they work with; after the first engine that no longer grows.
    before = taken()
    for _ in range(3):
        use()
    assert taken() == before
