"""DDRNet-23-slim as ONNX, from the tables of its paper, with random weights.

    python benchmarks/peers/ddrnet.py -o ddrnet23slim.onnx

Hong et al., "Deep Dual-resolution Networks for Real-time and Accurate Semantic Segmentation of Road
Scenes" (arXiv 2101.06085): its tables and figures give the stages and the pyramid (DAPPM), and 5.7 M
parameters and 36.3 G multiply-adds at 1024x2048.
"""

from __future__ import annotations

import sys
from typing import Final

import onnx
from layers import Map, Network, hold_against_paper, write_file

PAPER_PARAMETERS: Final = 5.7e6
PAPER_MACS: Final = 36.3e9
SEGMENTED_AT: Final = (1024, 2048)
CLASSES: Final = 19
"""Of Cityscapes."""

WIDTH: Final = 32
PYRAMID: Final = ((5, 2), (9, 4), (17, 8))
"""Kernels and strides of the pooled scales; one more is the whole map."""


def basic(net: Network, x: Map, channels: int, *, stride: int = 1, relu: bool = True) -> Map:
    """Two 3x3 convolutions beside a short cut."""
    y = net.conv(net.conv(x, channels, 3, stride=stride), channels, 3, relu=False)
    return _joined(net, x, y, stride, relu)


def bottleneck(net: Network, x: Map, channels: int, *, stride: int = 1) -> Map:
    """A narrow 3x3 convolution between two of 1x1, twice as wide at the end; no ReLU."""
    y = net.conv(net.conv(x, channels), channels, 3, stride=stride)
    return _joined(net, x, net.conv(y, 2 * channels, relu=False), stride, relu=False)


def _joined(net: Network, x: Map, y: Map, stride: int, relu: bool) -> Map:
    same = stride == 1 and x.channels == y.channels
    out = net.add(y, x if same else net.conv(x, y.channels, stride=stride, relu=False))
    return net.relu(out) if relu else out


def pair(net: Network, x: Map, channels: int, stride: int) -> Map:
    """Two blocks, the second one without its ReLU: it comes after what is added."""
    return basic(net, basic(net, x, channels, stride=stride), channels, relu=False)


def exchanged(net: Network, low: Map, high: Map, down: tuple[int, ...]) -> tuple[Map, Map]:
    """Bilateral fusion: each branch takes the other's map at its own size.

    Args:
        net: the network.
        low: of the branch of low resolution, before its ReLU.
        high: of the other one, likewise.
        down: channels of the strided convolutions that bring `high` to `low`.
    """
    active_low, y = net.relu(low), net.relu(high)
    for channels in down:
        y = net.conv(y, channels, 3, stride=2, relu=channels != down[-1])
    up = net.conv(active_low, high.channels, relu=False)
    return net.add(low, y), net.add(high, net.resize(up, high))


def pyramid(net: Network, x: Map, hidden: int, channels: int) -> Map:
    """Deep aggregation pyramid pooling: each scale is added to what the one before became."""

    def pre(y: Map, width: int, kernel: int = 1) -> Map:
        return net.conv(net.norm(y), width, kernel, norm=False, relu=False)

    scales = [pre(x, hidden)]
    pooled = [net.pool(x, kernel, stride) for kernel, stride in PYRAMID]
    for y in [*pooled, net.pool_all(x)]:
        raised = net.resize(pre(y, hidden), x)
        scales.append(pre(net.add(raised, scales[-1]), hidden, 3))
    return net.add(pre(net.concat(*scales), channels), pre(x, channels))


def segmenter(size: tuple[int, int] = SEGMENTED_AT) -> tuple[Network, onnx.ModelProto]:
    """DDRNet-23-slim without its training head, up to the logits at 1/8."""
    net = Network("ddrnet-23-slim", size)
    x = net.conv(net.input, WIDTH, 3, stride=2, bias=True)
    x = net.conv(x, WIDTH, 3, stride=2, bias=True)
    x = net.relu(pair(net, x, WIDTH, 1))
    shared = net.relu(pair(net, x, 2 * WIDTH, 2))
    low, high = pair(net, shared, 4 * WIDTH, 2), pair(net, shared, 2 * WIDTH, 1)
    low, high = exchanged(net, low, high, (4 * WIDTH,))
    low, high = net.relu(low), net.relu(high)
    low, high = pair(net, low, 8 * WIDTH, 2), pair(net, high, 2 * WIDTH, 1)
    low, high = exchanged(net, low, high, (4 * WIDTH, 8 * WIDTH))
    low, high = net.relu(low), net.relu(high)
    high = bottleneck(net, high, 2 * WIDTH)
    low = bottleneck(net, low, 8 * WIDTH, stride=2)
    context = pyramid(net, low, hidden=4 * WIDTH, channels=4 * WIDTH)
    x = net.add(high, net.resize(context, high))
    x = net.conv(net.norm(x), 2 * WIDTH, 3)
    return net, net.model(net.linear(x, CLASSES, bias=True))


def check() -> None:
    """Hold the network against the paper."""
    hold_against_paper(segmenter()[0], PAPER_PARAMETERS, PAPER_MACS)


def main() -> int:
    """Write the file."""
    check()
    return write_file(
        __doc__ or "", "DDRNet-23-slim", "ddrnet23slim.onnx", SEGMENTED_AT, *segmenter()
    )


if __name__ == "__main__":
    sys.exit(main())
