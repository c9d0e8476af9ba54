"""Cases of plans: files of TensorRT up to where it would be called, networks laid out, Triton."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from fasterseg.arch.genotype import Genotype
from fasterseg.arch.plan import plan as lay
from fasterseg.cli.describe import plan_facts
from fasterseg.deploy.triton import Servable, Serving, servable_file, write_repository
from fasterseg.graph.emit import EmitOptions
from fasterseg.retarget.diagram import lay_out
from fasterseg.retarget.diagram_text import text
from fasterseg.runtime.base import EngineSpec
from fasterseg.runtime.model import resolve_model
from fasterseg.runtime.plan_files import (
    BuildOptions,
    layers_path,
    read_facts,
    read_plan,
    sidecar_path,
    write_plan,
)
from fasterseg.runtime.plan_store import Job, find_or_build_plan, plan_path
from fasterseg.runtime.trt import check_fit
from fasterseg.runtime.trt_target import Target
from fasterseg.types import Size
from tests.plans import GPU, SIZE, plan
from tests.shared import zoo_genotype
from tests.slow.fuzz_case import Case, chosen, told
from tests.slow.mutate import dumped, mutate_bytes, mutate_json

DATA = bytes(range(256)) * 8
LAYERS = {
    "Layers": [
        {"Name": "a", "LayerType": "Convolution", "Outputs": [{"Name": "b", "DataType": "Half"}]},
        {"Name": "c", "LayerType": "Reformat", "Outputs": [{"Format/Datatype": "x"}]},
        "d",
    ],
    "Bindings": ["frames", {"Name": "labels"}],
}  # fmt: skip
NAMES = (
    "net", "../../net", "a/b", "", ".", "..", "-", "\x00", "net\nname: \"x\"", "n" * 300, "Netz ä",
)  # fmt: skip


@contextmanager
def plans() -> Iterator[Case]:
    """Files, networks, repositories in equal parts."""
    good = plan(DATA, layers={"CONVOLUTION": 45})
    parts: tuple[Callable[[np.random.Generator, Path], None], ...] = (
        lambda random, folder: _file(random, _written(random, folder / "x.engine", good)),
        lambda random, folder: _stored(random, good),
        _network,
        lambda random, folder: _repository(random, folder, good),
    )

    def case(random: np.random.Generator, folder: Path) -> bool:
        parts[int(random.integers(len(parts)))](random, folder)
        return True

    yield case


def _written(random: np.random.Generator, path: Path, good: Any) -> Path:
    """A plan with its sidecar and what the inspector said; one of the three is mutated."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_plan(path, good)
    layers_path(path).write_text(json.dumps(LAYERS))
    which = random.random()
    if which < 0.6:
        tree = json.loads(sidecar_path(path).read_text())
        sidecar_path(path).write_text(dumped(mutate_json(tree, random)))
    elif which < 0.7:
        sidecar = sidecar_path(path).read_bytes()
        sidecar_path(path).write_bytes(mutate_bytes(sidecar, random, 1))
    elif which < 0.8:
        layers_path(path).write_text(dumped(mutate_json(LAYERS, random)))
    else:
        path.write_bytes(_container(random))
        if random.random() < 0.5:
            sidecar_path(path).unlink()
    return path


def _container(random: np.random.Generator) -> bytes:
    """A plan behind a header of JSON, as others write it; or a damaged plan."""
    if random.random() < 0.3:
        return mutate_bytes(DATA, random, 0)
    header = dumped(mutate_json({"description": "x", "stride": 32, "names": {"0": "a"}}, random))
    length = len(header) if random.random() < 0.7 else int(random.integers(0, 1 << 32))
    whole = length.to_bytes(4, "little") + header.encode() + DATA
    return whole if random.random() < 0.7 else mutate_bytes(whole, random, 5)


def _file(random: np.random.Generator, path: Path) -> None:
    """All that is done with a file before a runtime gets it."""
    if random.random() < 0.5:
        facts = read_facts(path)
        told(json.dumps(plan_facts(path)), facts.to_json(), facts.rebuild())
        return
    read = read_plan(path)
    told(read.facts.rebuild())
    check_fit(read.facts, "tensorrt", "10.16.1.11", GPU, read.title)


def _stored(random: np.random.Generator, good: Any) -> None:
    """A plan of the cache that was left by somebody else."""
    job = Job(
        resolve_model("fasterseg-camvid"),
        SIZE,
        EmitOptions(precision="fp16"),
        Target("tensorrt", "10.16.1.11", GPU, (GPU.arch,)),
        BuildOptions(workspace_mib=int(random.integers(1, 1 << 20))),
    )
    path = plan_path(job)
    if random.random() < 0.5:
        path = plan_path(replace(job, options=BuildOptions()))
    _written(random, path, good)
    try:
        told(find_or_build_plan(job, told, may_build=False))
    finally:
        for file in (path, sidecar_path(path), layers_path(path)):
            file.unlink(missing_ok=True)


def _network(random: np.random.Generator, folder: Path) -> None:
    """A network that somebody wrote, laid out and drawn."""
    tree = zoo_genotype(chosen(random, "fasterseg-camvid", "fasterseg-student")).to_json()
    genotype = Genotype.from_json(_altered(tree, random))
    size = Size(*(int(side) for side in np.exp(random.uniform(2.0, 9.0, 2))))
    network = lay(genotype, size, aux_heads=bool(random.integers(2)))
    assert network.macs > 0
    assert network.parameters > 0
    assert all(min(shape, default=1) > 0 for shape in network.parameter_shapes.values())
    assert all(min(node.spec.output_size) > 0 for node in network.nodes)
    assert len(network.last_use) == len(network.nodes)
    for branch in range(len(genotype.branches)):
        assert len(network.branch_cells(branch)) == len(genotype.branches[branch].ops)
    told(*text(lay_out(network)))


def _altered(tree: Any, random: np.random.Generator) -> Any:
    """Another network, mostly one that can be: values of the right kind, and now and then junk."""
    if random.random() < 0.3:
        return mutate_json(tree, random)
    for branch in tree["branches"]:
        cells = int(random.integers(1, 1 + len(branch["ops"])))
        ops = [
            chosen(random, "skip", "conv", "conv_downup", "conv_2x", "conv_2x_downup")
            for _ in range(cells)
        ]
        branch.update(
            ops=ops, strides=branch["strides"][:cells], widths=branch["widths"][: cells - 1]
        )
    tree["stem_width"], tree["head_width"] = (int(width) for width in random.integers(3, 14, 2))
    tree["num_classes"] = int(random.integers(1, 129))
    return tree


def _repository(random: np.random.Generator, folder: Path, good: Any) -> None:
    """A model for Triton, of a mutated description under a mutated name."""
    repository = folder / "models"
    serving = Serving(
        chosen(random, "auto", "cpu", "cuda"),  # type: ignore[arg-type]
        None if random.random() < 0.5 else int(random.integers(1, 300)),
        float(random.uniform(0, 20)),
    )
    name = None if random.random() < 0.4 else chosen(random, *NAMES)
    made = write_repository(_servable(random, folder, good), repository, serving, name=name)
    assert made.resolve().parent == repository.resolve(), f"{made} lies elsewhere"
    config = (made / "config.pbtxt").read_text(encoding="utf-8")
    assert _parsed(config).name == made.name


def _servable(random: np.random.Generator, folder: Path, good: Any) -> Servable:
    if random.random() < 0.5:
        return servable_file(_written(random, folder / "x.engine", good))
    tree = mutate_json(json.loads(good.facts.spec.to_json()), random)
    return Servable(EngineSpec.from_json(dumped(tree), "x"), b"the graph")


@cache
def _definition() -> ModuleType:
    """Triton's `ModelConfig` from the package tritonclient, without what that needs besides."""
    client = importlib.util.find_spec("tritonclient")
    assert client is not None, "tritonclient is not installed"
    folder = (client.submodule_search_locations or [""])[0]
    file = Path(folder, "grpc", "model_config_pb2.py")
    found = importlib.util.spec_from_file_location("model_config_pb2", file)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def _parsed(config: str) -> Any:
    from google.protobuf import text_format

    return text_format.Parse(config, _definition().ModelConfig())
