"""Folded weights as the launches of a schedule take them: padded, laid out, on the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fasterseg.graph.weights import Weights, fold
from fasterseg.nn.schedule import Kind, Launch, Schedule, held_channels

Array = NDArray[np.float32]
Folded = Mapping[str, tuple[Array, Array]]


@dataclass(frozen=True, slots=True)
class LaunchArrays:
    """What a launch multiplies by and adds; channels are padded with zeros to multiples of 8.

    Attributes:
        weights: (C_out, C_in, k, k) each, channels_last.
        biases: (C_out,) each.
    """

    weights: tuple[Tensor, ...] = ()
    biases: tuple[Tensor, ...] = ()


def launch_arrays(
    schedule: Schedule,
    weights: Weights,
    dtype: torch.dtype,
    bias_type: Callable[[Kind], torch.dtype],
    device: torch.device,
) -> dict[int, LaunchArrays]:
    """Fold the batch norms and give every launch its arrays.

    Args:
        schedule: the launches.
        weights: of its plan.
        dtype: of the weights.
        bias_type: kind of launch -> type of its biases.
        device: where they are to lie.
    """
    folded = fold(schedule.plan, weights)
    made: dict[int, LaunchArrays] = {}
    for launch in schedule.launches:
        # All is prepared on the CPU, so that a copy is the only thing that a stream has to do.
        kernels = [torch.from_numpy(_padded(array)) for array in _weights(launch, folded)]
        biases = [torch.from_numpy(_padded(array)) for array in _biases(launch, folded)]
        made[launch.id] = LaunchArrays(
            tuple(
                kernel.to(dtype).contiguous(memory_format=torch.channels_last).to(device)
                for kernel in kernels
            ),
            tuple(bias.to(bias_type(launch.kind)).to(device) for bias in biases),
        )
    return made


def _weights(launch: Launch, folded: Folded) -> list[Array]:
    arrays = [folded[name][0] for name in launch.weights]
    return [_shifted(*arrays)] if _is_strided_skip(launch) else arrays


def _biases(launch: Launch, folded: Folded) -> list[Array]:
    arrays = [folded[name][1] for name in launch.biases]
    return [np.concatenate(arrays)] if _is_strided_skip(launch) else arrays


def _is_strided_skip(launch: Launch) -> bool:
    return launch.kind == "conv" and len(launch.weights) == 2


def _shifted(first: Array, second: Array) -> Array:
    """Two 1x1 kernels as one 2x2 kernel: the second one weighs the pixel down and right."""
    half, channels = first.shape[:2]
    kernel = np.zeros((2 * half, channels, 2, 2), np.float32)
    kernel[:half, :, 0, 0] = first[:, :, 0, 0]
    kernel[half:, :, 1, 1] = second[:, :, 0, 0]
    return kernel


def _padded(array: Array) -> Array:
    """Output channels (and input channels of a kernel) up to what maps hold."""
    channels = array.shape[: 2 if array.ndim == 4 else 1]
    spare = [(0, held_channels(count) - count) for count in channels]
    return np.pad(array, spare + [(0, 0)] * (array.ndim - len(spare)))
