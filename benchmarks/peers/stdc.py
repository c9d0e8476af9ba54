"""STDC1-Seg as ONNX, from the tables of its paper, with random weights.

    python benchmarks/peers/stdc.py -o stdc1.onnx

Fan et al., "Rethinking BiSeNet For Real-time Semantic Segmentation", CVPR 2021 (arXiv 2104.13188):
its tables give the stages of STDC1, and 8.44 M parameters and 813 M multiply-adds as a classifier at
224x224; text and figures give the heads. It prints no total of the segmenter, so the backbone is what
is held against it.
"""

from __future__ import annotations

import sys
from typing import Final

import onnx
from layers import Map, Network, hold_against_paper, write_file

PAPER_PARAMETERS: Final = 8.44e6
PAPER_MACS: Final = 813e6
CLASSIFIED_AT: Final = (224, 224)
SEGMENTED_AT: Final = (1024, 2048)

STAGES: Final = ((256, 2), (512, 2), (1024, 2))
"""Channels and modules of stages 3 to 5; the first module of each halves the size."""

CLASSES: Final = 19
"""Of Cityscapes."""


def module(net: Network, x: Map, channels: int, stride: int) -> Map:
    """Short-Term Dense Concatenate: four convolutions, each half as wide, and all of them kept."""
    first = net.conv(x, channels // 2)
    start = kept = first
    if stride == 2:
        start = net.conv(first, channels // 2, 3, stride=2, groups=channels // 2, relu=False)
        kept = net.pool(first, 3, 2)
    second = net.conv(start, channels // 4, 3)
    third = net.conv(second, channels // 8, 3)
    return net.concat(kept, second, third, net.conv(third, channels // 8, 3))


def stages(net: Network) -> list[Map]:
    """Maps at 1/8, 1/16 and 1/32."""
    x = net.conv(net.input, 32, 3, stride=2)
    x = net.conv(x, 64, 3, stride=2)
    maps = []
    for channels, modules in STAGES:
        for index in range(modules):
            x = module(net, x, channels, stride=1 if index else 2)
        maps.append(x)
    return maps


def classifier() -> Network:
    """The backbone as the paper counts it: with its 1000 ImageNet classes."""
    net = Network("stdc1-classifier", CLASSIFIED_AT)
    last = net.conv(stages(net)[-1], 1024)
    hidden = net.conv(net.pool_all(last), 1024)
    net.linear(hidden, 1000, bias=False)
    return net


def refined(net: Network, x: Map) -> Map:
    """Attention refinement: 128 channels, each weighed by what the whole map holds of it."""
    x = net.conv(x, 128, 3)
    weights = net.sigmoid(net.conv(net.pool_all(x), 128, relu=False))
    return net.multiply(x, weights)


def fused(net: Network, detail: Map, context: Map) -> Map:
    """Feature fusion: both maps joined, then weighed channel by channel."""
    x = net.conv(net.concat(detail, context), 256)
    hidden = net.conv(net.pool_all(x), 64, norm=False)
    weights = net.sigmoid(net.conv(hidden, 256, norm=False, relu=False))
    return net.add(net.multiply(x, weights), x)


def segmenter(size: tuple[int, int] = SEGMENTED_AT) -> tuple[Network, onnx.ModelProto]:
    """STDC1-Seg without its training heads, up to the logits at 1/8."""
    net = Network("stdc1-seg", size)
    eighth, sixteenth, last = stages(net)
    whole = net.conv(net.pool_all(last), 128)
    deep = net.add(refined(net, last), net.resize(whole, last, "nearest"))
    deep = net.conv(net.resize(deep, sixteenth, "nearest"), 128, 3)
    middle = net.add(refined(net, sixteenth), deep)
    middle = net.conv(net.resize(middle, eighth, "nearest"), 128, 3)
    x = net.conv(fused(net, eighth, middle), 256, 3)
    return net, net.model(net.linear(x, CLASSES, bias=False))


def check() -> None:
    """Hold the backbone against the paper."""
    hold_against_paper(classifier(), PAPER_PARAMETERS, PAPER_MACS)


def main() -> int:
    """Write the file."""
    check()
    return write_file(__doc__ or "", "STDC1-Seg", "stdc1.onnx", SEGMENTED_AT, *segmenter())


if __name__ == "__main__":
    sys.exit(main())
