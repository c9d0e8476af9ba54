"""`FusedNetwork`: a schedule's launches on torch tensors; what the CUDA engine captures."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, NamedTuple

import torch
from torch import Tensor

from fasterseg.arch.plan import Plan
from fasterseg.errors import UnsupportedError, UsageError
from fasterseg.graph.weights import Weights, check_weights
from fasterseg.nn.folded import LaunchArrays, launch_arrays
from fasterseg.nn.lanes import Lanes
from fasterseg.nn.launches import KernelLaunches, TorchLaunches
from fasterseg.nn.schedule import Launch, Schedule, schedule
from fasterseg.runtime.kernels import KernelLibrary
from fasterseg.types import Precision

DTYPES: Final = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

COMPILE_MODE: Final = "max-autotune-no-cudagraphs"
"""Mode of `torch.compile`: its own graphs would copy frames and labels once more."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One of the ways to run a network that give the same labels.

    Attributes:
        lanes: streams; branches run side by side on two.
        zoomed: each zoomed cell as one launch, our kernel in fp16.
        resize: resizes and joins by our kernel (in fp16, where there is one) or by torch.
        compiled: all between normalisation and tail by `torch.compile`; one lane, torch alone.
        search: whether cuDNN times its algorithms in the first run of a size, which takes
            seconds, or takes the one that its rules name. It keeps either per thread, so the two
            can be compared only in processes of their own.
    """

    lanes: int = 1
    zoomed: bool = False
    resize: Literal["kernel", "torch"] = "kernel"
    compiled: bool = False
    search: bool = True

    def __post_init__(self) -> None:
        if self.lanes < 1:
            raise UsageError(f"a variant needs at least one lane, not {self.lanes}")
        if self.compiled and (self.lanes > 1 or self.zoomed or self.resize == "kernel"):
            raise UsageError(
                "a compiled variant runs on one lane and by torch alone: "
                'Variant(resize="torch", compiled=True)'
            )

    @property
    def name(self) -> str:
        """Such as "lanes2+zoomed"; one for each variant."""
        if self.compiled:
            parts = ["compiled"]
        else:
            parts = [f"lanes{self.lanes}"] + ["zoomed"] * self.zoomed
            parts += ["torch-resize"] * (self.resize == "torch")
        return "+".join(parts + ["unsearched"] * (not self.search))


class FusedNetwork:
    """A network with batch norm folded, in launches that fuse what can be.

    Everything is enqueued on torch's current stream and on side streams that begin and end with
    it; the host never waits. So a pass can be captured into a CUDA graph, after one pass outside
    of it on the same stream *and in the same thread*: that one loads code, and cuDNN keeps the
    algorithms it chose per thread. Passes follow one another on one stream (see `nn.lanes`).

    Args:
        plan: the network at the size of the frames; training heads are left out.
        weights: fitting it.
        precision: "fp32" (without TF32), "fp16" or "bf16", of maps and weights.
        device: "cuda", or "cpu": plain operations for tests, half precision summed in float32.
        variant: how to run it.
        kernels: our kernels; None leaves all to torch.

    Attributes:
        schedule: the launches.
        variant: as given.
        tail: where upsampling and argmax are done, "kernel" or "torch".

    Raises:
        UsageError: a precision that it does not have.
        WeightsError: the weights do not fit.
    """

    def __init__(
        self,
        plan: Plan,
        weights: Weights,
        precision: Precision,
        device: str,
        *,
        variant: Variant,
        kernels: KernelLibrary | None = None,
    ) -> None:
        if precision not in DTYPES:
            raise UsageError(
                f"torch does not run precision {precision}; choose one of {', '.join(DTYPES)}"
            )
        check_weights(weights, plan, "the weights")
        self.plan, self.variant = plan, variant
        self.tail: Literal["kernel", "torch"] = "torch" if kernels is None else "kernel"
        self.schedule: Schedule = schedule(plan, zoomed=variant.zoomed, lanes=variant.lanes)
        self._device, self._exact = _placed(device), precision == "fp32"
        self._does = _launches(DTYPES[precision], self._device, variant, kernels)
        arrays = launch_arrays(
            self.schedule, weights, DTYPES[precision], self._does.bias_type, self._device
        )
        self._links = tuple(
            _Link(
                call_of(self._does, launch, arrays[launch.id]),
                launch.id,
                launch.inputs,
                self.schedule.freed[launch.id],
            )
            for launch in self.schedule.launches[1:-1]
        )
        self._lanes: Lanes | None = None
        if self._device.type == "cuda":
            self._lanes = Lanes(self.schedule, self._device)
            # Copies and conversions of weights ran on another stream than the passes will.
            torch.cuda.synchronize(self._device)
        self._compiled: Callable[[Tensor], Tensor] | None = None
        self._was_compiled = False
        if variant.compiled:
            links = self._links
            self._compiled = torch.compile(
                lambda x: _chain(links, x),
                mode=COMPILE_MODE,
                dynamic=False,
                fullgraph=True,
            )

    @property
    def unfused(self) -> int:
        """Kinds of convolution that cuDNN was found not to run with bias and ReLU in one call."""
        return len(self._does.refused)

    @torch.no_grad()
    def labels(self, frames: Tensor, out: Tensor) -> None:
        """Classify a batch; enqueues and returns.

        Args:
            frames: (N, H, W, 3) uint8, BGR, contiguous, on the device; H and W as the plan's.
            out: (N, H, W) uint8, contiguous, on the device: gets the class ids.

        Raises:
            UnsupportedError: torch cannot compile the network here (a compiled variant's first).
        """
        assert out.shape == frames.shape[:3], (out.shape, frames.shape)
        assert frames.is_contiguous(), frames.stride()
        assert out.is_contiguous(), out.stride()
        with self._mode():
            self._does.tail(self._logits(frames), self.plan.genotype.num_classes, out)

    @torch.no_grad()
    def logits8(self, frames: Tensor) -> Tensor:
        """The head's logits.

        Args:
            frames: as of `labels`.

        Returns:
            (N, classes, ceil(H/8), ceil(W/8)) float32.
        """
        with self._mode():
            return self._logits(frames)[:, : self.plan.genotype.num_classes].float()

    @torch.no_grad()
    def single_steps(self, frames: Tensor) -> list[tuple[Launch, Callable[[], None]]]:
        """Each launch alone, on inputs computed now, for times per layer.

        All values of a pass are kept as long as the list is. A compiled variant's steps are those
        it is compiled from.

        Args:
            frames: as of `labels`.

        Returns:
            Each launch with a function that enqueues it on torch's current stream.
        """
        first, *between, last = self.schedule.launches
        with self._mode():
            values = {first.id: self._does.normalize(frames)}
            for link in self._links:
                values[link.made] = link.call([values[source] for source in link.inputs])
        out = torch.empty(frames.shape[:3], dtype=torch.uint8, device=self._device)
        classes, logits = self.plan.genotype.num_classes, values[last.inputs[0]]
        steps: list[tuple[Launch, Callable[[], Any]]] = [
            (first, partial(self._does.normalize, frames)),
            *(
                (launch, partial(link.call, [values[source] for source in link.inputs]))
                for launch, link in zip(between, self._links, strict=True)
            ),
            (last, partial(self._does.tail, logits, classes, out)),
        ]
        return [(launch, partial(self._alone, step)) for launch, step in steps]

    @torch.no_grad()
    def _alone(self, step: Callable[[], Any]) -> None:
        with self._mode():
            step()

    def _logits(self, frames: Tensor) -> Tensor:
        """(N, classes and zeros, h, w) in the network's precision."""
        assert tuple(frames.shape[1:3]) == self.plan.size, (frames.shape, self.plan.size)
        if self._compiled is not None:
            return self._through(self._compiled, self._does.normalize(frames))
        if self._lanes is None:
            return _chain(self._links, self._does.normalize(frames))
        return self._walk(frames, self._lanes)

    def _walk(self, frames: Tensor, lanes: Lanes) -> Tensor:
        """All but the tail, each launch on its lane; values are held as `nn.lanes` says."""
        main = torch.cuda.current_stream(self._device)
        first, *between, last = self.schedule.launches
        with lanes.around(first, main):
            values = {first.id: self._does.normalize(frames)}
        for launch, link in zip(between, self._links, strict=True):
            with lanes.around(launch, main):
                values[link.made] = link.call([values[source] for source in link.inputs])
            for value in link.freed:
                del values[value]
        return values[last.inputs[0]]

    def _through(self, compiled: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        if self._was_compiled:
            return compiled(x)
        try:
            logits = compiled(x)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            said = str(error).strip().splitlines() or [type(error).__name__]
            raise UnsupportedError(
                f"torch.compile cannot make the network {self.plan.genotype.name} here "
                f"({said[0]}); run it uncompiled"
            ) from error
        self._was_compiled = True
        return logits

    def _mode(self) -> contextlib.AbstractContextManager[None]:
        return cudnn_mode(search=self.variant.search, exact=self._exact)


Call = Callable[[Sequence[Tensor]], Tensor]


class _Link(NamedTuple):
    """A launch between the ends, in plain values that a tracer can follow.

    Attributes:
        call: does it to its inputs.
        made: name of the value it gives.
        inputs: names of the values it reads.
        freed: names of those nobody reads after it.
    """

    call: Call
    made: int
    inputs: tuple[int, ...]
    freed: tuple[int, ...]


def _chain(links: Sequence[_Link], x: Tensor) -> Tensor:
    """Normalised frames, value 0, to logits, one launch after the other."""
    values = {0: x}
    for link in links:
        values[link.made] = link.call([values[source] for source in link.inputs])
        for value in link.freed:
            del values[value]
    return values[links[-1].made]


def call_of(does: TorchLaunches, launch: Launch, arrays: LaunchArrays) -> Call:
    """A launch between normalisation and tail, with its arrays, as a function of its inputs."""
    weights, biases = arrays.weights, arrays.biases
    bias = biases[0] if biases else None
    stride, relu, size = launch.stride, launch.relu, launch.out_size
    match launch.kind:
        case "conv":
            return lambda maps: does.convolve(maps[0], weights[0], bias, stride, relu)
        case "resize":
            return lambda maps: does.resize(maps[0], size, bias, relu)
        case "join":
            return lambda maps: does.join(maps, size)
        case "zoomed":
            return lambda maps: does.zoomed(maps[0], weights, biases, stride)
        case "project":
            return lambda maps: does.project(maps[0], weights[0], biases[0])
        case "normalize" | "tail":
            raise AssertionError(f"{launch.name} is one of the two ends")


def _launches(
    dtype: torch.dtype, device: torch.device, variant: Variant, kernels: KernelLibrary | None
) -> TorchLaunches:
    # The compiler fuses by itself, and cannot look into a call of cuDNN.
    fused = not variant.compiled
    if kernels is None:
        return TorchLaunches(dtype, device, fused=fused)
    resizes = variant.resize == "kernel"
    return KernelLaunches(dtype, device, kernels, resizes=resizes, fused=fused)


def _placed(device: str) -> torch.device:
    """The device with its number, so that later changes of the current one do not matter."""
    if device == "cuda":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device(device)


@contextlib.contextmanager
def cudnn_mode(*, search: bool, exact: bool) -> Iterator[None]:
    """Set cuDNN as a network wants it; what was set before comes back.

    Args:
        search: whether it times its algorithms for sizes it has not met.
        exact: whether float32 is computed without TF32.
    """
    cudnn: Any = torch.backends.cudnn
    settings: list[tuple[Any, str, Any]] = [(cudnn, "benchmark", search)]
    if exact:
        # torch 2.9 renamed the switch, and refuses that both names are used.
        renamed = hasattr(cudnn, "conv")
        settings.append(
            (cudnn.conv, "fp32_precision", "ieee") if renamed else (cudnn, "allow_tf32", False)
        )
    before = [getattr(owner, name) for owner, name, _ in settings]
    for owner, name, value in settings:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for (owner, name, _), value in zip(settings, before, strict=True):
            setattr(owner, name, value)
