"""Foreign networks that join a run: an ONNX file behind the boundary that ours have."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from fasterseg.errors import UsageError
from fasterseg.graph.foreign import Contract, Foreign, digest, fit, load
from fasterseg.graph.wrapping import wrap
from fasterseg.labels import CAMVID, CITYSCAPES, LabelSet
from fasterseg.palettes import read_palette
from fasterseg.registry import resolve
from fasterseg.runtime.base import ENGINES, METADATA_KEY, Device, Engine
from fasterseg.runtime.foreign import describe_foreign
from fasterseg.types import Size

BACKEND = "onnxruntime"
"""What runs peers."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A foreign network: logits from a picture.

    Attributes:
        name: in tables and records.
        path: its ONNX file.
        contract: mean, deviation and colour order; those of ImageNet by default.
    """

    name: str
    path: Path
    contract: Contract = field(default_factory=Contract)

    @classmethod
    def parse(cls, text: str) -> Peer:
        """Read `FILE[:NAME]`; the name is the file's stem by default.

        Raises:
            UsageError: it names no .onnx.
        """
        file, colon, name = text.rpartition(":")
        if not colon or not file.endswith(".onnx"):
            file, name = text, ""
        path = Path(file)
        if path.suffix != ".onnx":
            raise UsageError(f"--peer {text} is not FILE.onnx or FILE.onnx:NAME")
        return cls(name or path.stem, path)


class PeerFile:
    """A peer's file, read once."""

    def __init__(self, peer: Peer) -> None:
        """Read it.

        Raises:
            EngineError: it cannot be read or is no ONNX model.
        """
        self.peer = peer
        self._model = load(peer.path)
        self._sha256 = digest(self._model)

    def network(self, size: Size, batch: int) -> Foreign:
        """The network at one size; see `graph.foreign.fit`.

        Raises:
            UsageError: it takes or gives something else; the message says what.
        """
        return fit(
            self._model, size, batch, title=f"peer {self.peer.name}", contract=self.peer.contract
        )

    def graph(self, size: Size, batch: int, *, whole: bool) -> bytes:
        """ONNX of the whole engine, or of the network as its file has it, at one size."""
        network = self.network(size, batch)
        made = network.model
        if whole:
            assert network.classes is not None, "its contract asks for logits"
            labels = _labels(network.classes)
            contract = self.peer.contract
            spec = describe_foreign(network, contract, self.peer.name, labels, self._sha256)
            made = wrap(network, contract, {METADATA_KEY: spec.to_json()})
        data: bytes = made.SerializeToString()
        return data

    def open(self, size: Size, batch: int, device: str, threads: int | None) -> Engine:
        """The engine: uint8 BGR frames in, uint8 class ids of the frame's size out.

        Raises:
            UsageError: the file does not fit.
            EngineError: ONNX Runtime does not run it, or the device is not there.
        """
        backend = resolve(ENGINES, "engine", BACKEND)
        graph = self.graph(size, batch, whole=True)
        engine: Engine = backend.open(graph, cast("Device", device), threads)
        return engine


def _labels(classes: int) -> LabelSet:
    """Names for so many classes: those of a data set where the number tells it, else numbers."""
    for known in (CITYSCAPES, CAMVID):
        if len(known) == classes:
            return known
    names = tuple(f"class {index}" for index in range(classes))
    colours = read_palette("distinct").colours[:classes]
    return LabelSet("numbered", names, colours)
