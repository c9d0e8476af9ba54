"""Convert the latency table of the original FasterSeg code into a `LatencyTable` file.

Usage: python benchmarks/import_original_table.py SOURCE.json TARGET.json

SOURCE is the original `latency_lookup_table.npy` as JSON: {"table": {key: milliseconds}}.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, cast

from fasterseg.arch.latency import LatencyTable
from fasterseg.arch.operators import OpSpec, Stride
from fasterseg.errors import ConfigError
from fasterseg.types import DeviceInfo, Size

NOTICE: Final = (
    "Converted from latency/latency_lookup_table.npy of FasterSeg "
    "(https://github.com/VITA-Group/FasterSeg), MIT License, Copyright (c) 2019 Wuyang "
    "(Wuyang Chen). The full text of the licence is in the file LICENSE."
)

PROTOCOL: Final = {
    "description": (
        "Each operator alone as a fixed-width layer: random input, batch 1, fp32, exported to "
        "ONNX and run by TensorRT 5.1.5 (workspace 1 GiB). Input copied to the GPU once before; "
        "10 warm-up runs; 100 runs, doubled until one round takes at least 1 s, then about 6 s "
        "of synchronous runs; mean wall time per run without host-device copies."
    ),
    "differences": (
        "Resizes inside the operators are nearest instead of bilinear with align_corners; skip "
        "with stride 2 is one 1x1 convolution of all output channels; fuse is its 3x3 "
        "convolution alone, without the resize and the joining before it."
    ),
}

DEVICE: Final = DeviceInfo(
    id="gtx1080ti-original",
    name="NVIDIA GeForce GTX 1080 Ti",
    arch="sm_61",
    driver=None,
    cuda="10.1",
    os="not recorded",
    runtimes={"tensorrt": "5.1.5", "cudnn": "7.3"},
)

CELLS: Final = {
    "BasicResidual1x": "conv",
    "BasicResidual2x": "conv_2x",
    "BasicResidual_downup_1x": "conv_downup",
    "BasicResidual_downup_2x": "conv_2x_downup",
    "FactorizedReduce": "skip",
}
CONVOLUTIONS: Final = {("1", "1"): "squeeze", ("3", "1"): "fuse", ("3", "2"): "conv"}
"""Kernel and stride of a ConvNorm -> operator."""

PATTERNS: Final[Mapping[str, Callable[[re.Match[str]], str]]] = {
    rf"({'|'.join(CELLS)})_H(?P<h>\d+)_W(?P<w>\d+)_Cin(?P<i>\d+)_Cout(?P<o>\d+)"
    r"_stride(?P<s>[12])(_dilation1)?": lambda match: CELLS[match[1]],
    r"ConvNorm_H(?P<h>\d+)_W(?P<w>\d+)_Cin(?P<i>\d+)_Cout(?P<o>\d+)_kernel(?P<k>[13])"
    r"_stride(?P<s>[12])": lambda match: CONVOLUTIONS[match["k"], match["s"]],
    r"ff_H(?P<h>\d+)_W(?P<w>\d+)_C(?P<i>\d+)": lambda match: "ffm",
    r"head_H(?P<h>\d+)_W(?P<w>\d+)_Cin(?P<i>\d+)_Cout(?P<o>\d+)": lambda match: "head",
}
"""Form of an original key -> operator of a match."""


def spec_of(key: str) -> OpSpec:
    """The operator an original key stands for.

    Raises:
        ConfigError: no such key is known.
    """
    for pattern, operator in PATTERNS.items():
        if match := re.fullmatch(pattern, key):
            fields = match.groupdict()
            channels = int(fields["i"])
            return OpSpec(
                op=operator(match),
                in_channels=channels,
                out_channels=int(fields.get("o", channels)),
                stride=cast("Stride", int(fields.get("s", 1))),
                height=int(fields["h"]),
                width=int(fields["w"]),
            )
    raise ConfigError(f"'{key}' is not a key of the original latency table")


def convert(rows: Mapping[str, float]) -> LatencyTable:
    """The original's rows (key -> milliseconds) as a table.

    Raises:
        ConfigError: a key is unknown, or two keys stand for the same operator.
    """
    converted: dict[str, float] = {}
    for key, ms in rows.items():
        ours = spec_of(key).key()
        if ours in converted:
            raise ConfigError(f"'{key}' is a second row for {ours}")
        converted[ours] = ms
    return LatencyTable(
        device=DEVICE,
        backend="tensorrt 5.1",
        precision="fp32",
        size=Size(1024, 2048),
        batch=1,
        protocol=PROTOCOL,
        statistic="mean",
        upsample="nearest",
        unpriced=frozenset({"resize", "input", "output"}),
        commit="VITA-Group/FasterSeg 478b0265eb9ab626cfbe503ad16d2452878b38cc",
        measured_on="",
        rows=converted,
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("source", type=Path, help="the original table as JSON")
    parser.add_argument("target", type=Path, help="file to write")
    options = parser.parse_args(arguments)
    table = convert(json.loads(options.source.read_text(encoding="utf-8"))["table"])
    options.target.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"notice": NOTICE, **table.to_json()}, indent=1)
    options.target.write_text(text + "\n", encoding="utf-8")
    print(f"{options.target}: {len(table.rows)} rows")


if __name__ == "__main__":
    main()
