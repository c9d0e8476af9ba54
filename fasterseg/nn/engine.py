"""`TorchEngine`: the reference backend, the network as PyTorch runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fasterseg.arch.plan import Plan
from fasterseg.errors import DeviceUnavailableError, UsageError
from fasterseg.graph.weights import Weights
from fasterseg.nn.cuda_engine import CudaEngine
from fasterseg.nn.network import Network, upsample
from fasterseg.nn.weights import from_arrays
from fasterseg.preprocess import MEAN, STD
from fasterseg.runtime.base import Device, EngineSpec, check_frames
from fasterseg.types import Size

_DTYPES: Final = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class TorchEngine:
    """The torch network behind the engine boundary; see `runtime.base.Engine`.

    Everything is computed as written (batch norm not folded), so that it can serve as the
    reference for the engines that rearrange. On a GPU `build` gives one of those, `CudaEngine`;
    the network as written is had there by `TorchEngine(network, spec, "cuda")`.
    """

    backend: Final = "torch"
    tail: Final = "torch"

    def __init__(self, network: Network, spec: EngineSpec, device: str) -> None:
        self.spec = spec
        self.device = device
        dtype = _DTYPES[spec.precision]
        self._network: Network | None = network.to(device=device, dtype=dtype).eval()
        channel_values = torch.tensor([MEAN, STD], device=device).view(2, 1, 3, 1, 1)
        self._mean, self._std = channel_values[0] * 255, channel_values[1] * 255
        self._dtype = dtype

    @classmethod
    def build(
        cls,
        plan: Plan,
        weights: Weights,
        spec: EngineSpec,
        device: str,
        threads: int | None,
        *,
        plugins: str = "auto",
        tuned: bool = True,
        on_note: Callable[[str], None] = lambda line: None,
    ) -> TorchEngine | CudaEngine:
        """Make the engine of a plan: the reference on the CPU, the fast path on a GPU.

        Args:
            plan: the network.
            weights: fitting it.
            spec: what the engine is to say of itself.
            device: "cpu" or "cuda".
            threads: CPU threads of torch, for the whole process; None leaves them.
            plugins: "auto" or "off": whether our CUDA kernels are used on a GPU.
            tuned: on a GPU, take the fastest way to run the network, measured once; False takes
                the one that is fastest as a rule.
            on_note: gets lines for people.

        Raises:
            WeightsError: the weights do not fit.
            EngineError: see `CudaEngine.build`.
        """
        if device == "cuda":
            return CudaEngine.build(
                plan, weights, spec, plugins=plugins, tuned=tuned, on_note=on_note
            )
        if threads is not None:
            torch.set_num_threads(threads)
        network = Network(plan)
        from_arrays(network, weights)
        return cls(network, spec, device)

    @staticmethod
    def resolve_device(device: Device) -> str:
        """Give "cpu" or "cuda"; "auto" is CUDA where torch sees a device.

        Raises:
            DeviceUnavailableError: "cuda" was asked for and torch sees none.
        """
        available = torch.cuda.is_available()
        if device == "cuda" and not available:
            raise DeviceUnavailableError(
                f"torch {torch.__version__} sees no CUDA device. Check nvidia-smi and that torch "
                "is a CUDA build, or use --device cpu"
            )
        return "cuda" if available and device != "cpu" else "cpu"

    @torch.inference_mode()
    def run(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Classify one batch; see `runtime.base.Engine.run`."""
        size = Size(frames.shape[1], frames.shape[2]) if frames.ndim == 4 else Size(0, 0)
        logits = self._logits8(frames)
        labels = upsample(logits.float(), size).argmax(dim=1).to(torch.uint8)
        return np.asarray(labels.cpu().numpy())

    @torch.inference_mode()
    def run_logits(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The head's logits; see `runtime.base.LogitsEngine`."""
        return np.asarray(self._logits8(frames).float().cpu().numpy())

    def _logits8(self, frames: NDArray[np.uint8]) -> Tensor:
        check_frames(self.spec, frames)
        if self._network is None:
            raise UsageError(f"engine {self.spec.name} is closed; open it again")
        bgr = torch.from_numpy(frames).to(self.device)
        rgb = bgr.permute(0, 3, 1, 2).flip(1).float()
        normalized = (rgb - self._mean) / self._std
        return self._network.logits8(normalized.to(self._dtype))

    def close(self) -> None:
        """Release the network."""
        self._network = None
