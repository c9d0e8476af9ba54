from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from fasterseg.bench.networks import BareNetwork, as_input, layer_times, parse_profile
from fasterseg.bench.peers import Peer, PeerFile
from fasterseg.bench.suite import Access, Candidate, Suite
from fasterseg.bench.timing import TimingProtocol
from fasterseg.errors import EngineError, UsageError
from fasterseg.graph.signature import Stage
from fasterseg.runtime.base import Engine
from fasterseg.types import Precision, Size
from tests.unit.bench.test_engines import FakeEngine, batches, run
from tests.unit.graph.test_foreign import enlarged, network
from tests.unit.graph.test_foreign import run as run_onnx

pytestmark = pytest.mark.onnx

SIZE = Size(64, 96)
SHORT = TimingProtocol("short", warmup_runs=1, min_runs=4)


@pytest.fixture
def peer(tmp_path: Path) -> Peer:
    """A network of one convolution, in a file."""
    path = tmp_path / "net.onnx"
    onnx.save(network(classes=19), path)
    return Peer("Net", path)


@pytest.mark.parametrize(
    ("text", "name", "path"),
    [
        ("a/b.onnx", "b", "a/b.onnx"),
        ("a/b.onnx:STDC1", "STDC1", "a/b.onnx"),
        ("a:b/c.onnx", "c", "a:b/c.onnx"),
    ],
)
def test_peer_is_a_file_and_perhaps_a_name(text: str, name: str, path: str) -> None:
    assert Peer.parse(text) == Peer(name, Path(path))


def test_peer_of_another_kind_is_refused() -> None:
    with pytest.raises(UsageError, match=r"FILE\.onnx:NAME"):
        Peer.parse("net.pt")


def test_peer_becomes_an_engine_of_our_boundary(peer: Peer) -> None:
    engine = PeerFile(peer).open(SIZE, 2, "cpu", 1)
    assert (engine.spec.name, engine.spec.size, engine.spec.batch) == ("Net", SIZE, 2)
    assert (engine.spec.labels.name, engine.spec.trained) == ("cityscapes", True)
    (frames, *_) = batches(batch=2)
    labels = engine.run(frames)
    picture = as_input(frames, _Input("tensor(float)", [2, 3, 64, 96]))
    expected = enlarged(run_onnx(network(classes=19), "picture", picture), 8)
    assert np.mean(labels == expected) > 0.999
    engine.close()


def test_classes_without_names_are_numbered(tmp_path: Path) -> None:
    onnx.save(network(classes=5), tmp_path / "net.onnx")
    engine = PeerFile(Peer("Net", tmp_path / "net.onnx")).open(SIZE, 1, "cpu", 1)
    assert engine.spec.labels.classes == ("class 0", "class 1", "class 2", "class 3", "class 4")
    engine.close()


class _Input:
    """What a session says of its input."""

    def __init__(self, kind: str, shape: list[int]) -> None:
        self.type = kind
        self.shape = shape


def test_bare_network_gives_its_own_logits(peer: Peer) -> None:
    bare = BareNetwork(PeerFile(peer).graph(SIZE, 1, whole=False), threads=1)
    (frames, *_) = batches()
    bare.bind(frames)
    bare.run()
    [logits] = bare._binding.copy_outputs_to_cpu()
    picture = as_input(frames, _Input("tensor(float)", [1, 3, 64, 96]))
    assert np.allclose(logits, run_onnx(network(classes=19), "picture", picture), atol=1e-4)


def test_frames_take_the_form_the_input_wants() -> None:
    (frames, *_) = batches()
    assert as_input(frames, _Input("tensor(uint8)", [1, 64, 96, 3])) is frames
    planes = as_input(frames, _Input("tensor(uint8)", [1, 3, 64, 96]))
    assert np.array_equal(planes, frames.transpose(0, 3, 1, 2))
    assert as_input(frames, _Input("tensor(float16)", [1, 3, 64, 96])).dtype == np.float16


def test_peers_stand_beside_engines_with_the_network_alone(peer: Peer) -> None:
    asked = Suite(
        engines=("onnxruntime",),
        sizes=(SIZE,),
        protocol=SHORT,
        peers=(peer,),
        interleave=True,
        per_layer=True,
        device="cpu",
    )
    ours, theirs = run(asked, Access(lambda _: FakeEngine(), graphs=_free_graphs))
    assert (ours.peer, theirs.peer, theirs.engine) == (None, "Net", "onnxruntime")
    for cell in (ours, theirs):
        assert cell.network is not None
        assert len(cell.rounds_ms["network"]) == len(cell.rounds_ms["host_to_labels"])
    assert theirs.label_agreement is None
    assert any(layer.op == "Conv" for layer in theirs.layers)
    assert ours.layers == ()


def _free_graphs(candidate: Candidate, precision: Precision, stage: Stage) -> bytes | None:
    if stage == "labels":
        return None
    data: bytes = network().SerializeToString()
    return data


def test_peer_that_does_not_fit_costs_no_measurement(tmp_path: Path) -> None:
    onnx.save(network(dims=(1, 3, 128, 128)), tmp_path / "net.onnx")
    opened: list[Candidate] = []

    def opener(asked: Candidate) -> Engine:
        opened.append(asked)
        return FakeEngine()

    peers = (Peer("Net", tmp_path / "net.onnx"),)
    asked = Suite(engines=("a",), sizes=(SIZE,), protocol=SHORT, peers=peers)
    with pytest.raises(UsageError, match="height is 128, not 64"):
        run(asked, Access(opener))
    absent = Suite(engines=("a",), sizes=(SIZE,), peers=(Peer("Net", tmp_path / "no.onnx"),))
    with pytest.raises(EngineError, match="no file"):
        run(absent, Access(opener))
    assert opened == []


def test_two_peers_of_one_name_are_refused(peer: Peer) -> None:
    with pytest.raises(UsageError, match="FILE:NAME"):
        Suite(engines=("a",), sizes=(SIZE,), peers=(peer, peer)).candidates()


def test_layers_are_timed_by_the_runtime() -> None:
    free = network(dims=(1, 3, 64, 96))
    layers = layer_times(free.SerializeToString(), batches(), runs=3, threads=1)
    assert "Conv" in {layer.op for layer in layers}
    assert all(layer.ms >= 0 for layer in layers)


def test_profile_leaves_warm_up_and_other_events_out() -> None:
    def event(name: str, us: int, cat: str = "Node") -> dict[str, object]:
        return {"name": name, "cat": cat, "dur": us, "args": {"op_name": "Conv"}}

    events = [
        event("a_kernel_time", 9000),
        event("session_initialization", 1, "Session"),
        event("a_fence_before", 7),
        event("a_kernel_time", 1000),
        event("a_kernel_time", 3000),
        event("once_kernel_time", 5),
    ]
    (layer,) = parse_profile(events, warm_up=1)
    assert (layer.name, layer.op, layer.ms) == ("a", "Conv", 2.0)
