"""`config.pbtxt`: by Triton's own definition of it, and by the rules that its backends check."""

from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fasterseg.deploy.triton_config import Job, config_text
from fasterseg.graph.emit import EmitOptions
from fasterseg.runtime.base import METADATA_KEY, EngineSpec
from fasterseg.runtime.model import resolve_model
from fasterseg.runtime.plan_files import BuildOptions
from fasterseg.runtime.store import describe
from fasterseg.types import Size
from tests.plans import plan

pytestmark = pytest.mark.onnx

SIZE = Size(64, 96)


def job(batch: int | None = None, most: int = 4, **changes: Any) -> Job:
    """ONNX of the shipped model for a server; `batch` of its spec, None: free."""
    spec = replace(describe(resolve_model("fasterseg-camvid"), SIZE, EmitOptions()), batch=batch)
    plain = Job("net", spec, None, "auto", 0 if batch else most, 500)
    return replace(plain, **changes)


def free_sizes() -> EngineSpec:
    return describe(resolve_model("fasterseg-camvid"), SIZE, EmitOptions(dynamic=True))


def plan_job(dynamic: bool = False, **changes: Any) -> Job:
    """A TensorRT plan, of one size and one frame, or of free ones up to four."""
    if not dynamic:
        facts = plan().facts
        return replace(Job("net", facts.spec, facts, "cuda", 0, 500), **changes)
    options = BuildOptions(dynamic=("64x64", "64x96", "128x192"), max_batch=4)
    facts = plan(emit=EmitOptions(precision="fp16", dynamic=True), options=options).facts
    return replace(Job("net", facts.spec, facts, "cuda", 4, 500), **changes)


JOBS = {
    "free batch": job(),
    "one frame a call": job(most=1),
    "fixed batch": job(batch=2),
    "free sizes": job(spec=free_sizes()),
    "on CPUs": job(device="cpu"),
    "plan": plan_job(),
    "plan of free sizes": plan_job(dynamic=True),
}

each_job = pytest.mark.parametrize("made", JOBS.values(), ids=JOBS.keys())


def definition() -> ModuleType:
    """Triton's `ModelConfig` from the package tritonclient, without what that needs besides."""
    client = importlib.util.find_spec("tritonclient")
    if client is None or not client.submodule_search_locations:
        pytest.skip("tritonclient not installed: no definition of config.pbtxt to hold it against")
    file = Path(client.submodule_search_locations[0], "grpc", "model_config_pb2.py")
    found = importlib.util.spec_from_file_location("model_config_pb2", file)
    assert found is not None, f"{file} is no module"
    assert found.loader is not None, f"{file} cannot be loaded"
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def parsed(made: Job) -> Any:
    from google.protobuf import text_format

    return text_format.Parse(config_text(made), definition().ModelConfig())


@each_job
def test_triton_reads_what_was_meant(made: Job) -> None:
    config = parsed(made)
    kinds = definition().ModelInstanceGroup
    assert (config.name, config.max_batch_size) == ("net", made.max_batch_size)
    assert [(t.name, t.data_type) for t in (*config.input, *config.output)] == [
        ("frames", definition().TYPE_UINT8),
        ("labels", definition().TYPE_UINT8),
    ]
    [group] = config.instance_group
    wanted = {"auto": kinds.KIND_AUTO, "cpu": kinds.KIND_CPU, "cuda": kinds.KIND_GPU}[made.device]
    assert (group.kind, group.count) == (wanted, 1)
    told = config.parameters[METADATA_KEY].string_value
    assert EngineSpec.from_json(told, "the parameter") == made.spec


@each_job
def test_shapes_are_those_of_the_engine_under_tritons_rules(made: Job) -> None:
    """With batches the server adds a free axis, which the engine must have; without, none."""
    config, size = parsed(made), list(made.spec.size or (-1, -1))
    free = [-1] if config.max_batch_size > 0 else []
    engine_batch = [-1 if made.spec.batch is None else made.spec.batch]
    assert [*free, *config.input[0].dims] == [*engine_batch, *size, 3]
    assert [*free, *config.output[0].dims] == [*engine_batch, *size]


@each_job
def test_frames_are_gathered_only_where_more_than_one_fits(made: Job) -> None:
    config = parsed(made)
    assert config.HasField("dynamic_batching") == (made.max_batch_size > 1)
    if made.max_batch_size > 1:
        assert config.dynamic_batching.max_queue_delay_microseconds == 500


@each_job
def test_warm_up_runs_frames_of_a_size_that_fits_in_every_batch(made: Job) -> None:
    config = parsed(made)
    most = max(made.max_batch_size, 1)
    assert [sample.batch_size for sample in config.model_warmup] == list(range(1, most + 1))
    for sample in config.model_warmup:
        [(name, frames)] = sample.inputs.items()
        assert name == "frames"
        assert frames.zero_data
        shape = list(frames.dims)
        if not config.max_batch_size:
            assert shape.pop(0) == made.spec.batch
        assert all(free in (-1, given) for free, given in zip(config.input[0].dims[-3:], shape,
                                                             strict=True))  # fmt: skip


def test_a_large_batch_is_not_warmed_up_in_every_size() -> None:
    text = config_text(job(most=64))
    assert [int(n) for n in re.findall(r"batch_size: (\d+)\n  inputs", text)] == [*range(1, 9), 64]


@pytest.mark.parametrize(
    ("made", "backend", "file"),
    [(job(), "onnxruntime", "model.onnx"), (plan_job(), "tensorrt", "model.plan")],
)
def test_backend_and_file_belong_together(made: Job, backend: str, file: str) -> None:
    text = config_text(made)
    platform = {"onnxruntime": "onnxruntime_onnx", "tensorrt": "tensorrt_plan"}[backend]
    assert f'platform: "{platform}"\nbackend: "{backend}"\n' in text
    assert f'default_model_filename: "{file}"\n' in text


@pytest.mark.parametrize("name", ["free batch", "on CPUs", "plan", "plan of free sizes"])
def test_optimisations_are_those_of_the_backend(name: str) -> None:
    text = config_text(JOBS[name])
    assert ("use_tf32" in text) == (name == "free batch")
    assert ("graphs: true" in text) == (name == "plan")


@each_job
def test_text_is_made_of_fields_and_balanced_blocks(made: Job) -> None:
    depth = 0
    for line in config_text(made).splitlines()[1:]:
        depth -= line.strip() == "}"
        indent = len(line) - len(line.lstrip())
        assert indent == 2 * depth, line
        assert re.fullmatch(r'\w+(: (\d+|\w+|"([^"\\]|\\.)*"|\[ -?\d+(, -?\d+)* \])| \{)|\}',
                            line.strip()), line  # fmt: skip
        depth += line.endswith("{")
    assert depth == 0


def test_the_description_survives_quotes_backslashes_and_line_ends() -> None:
    labels = job().spec.labels
    names = ('a "b"', "back\\slash", "two\nlines", "ö\u2028", *labels.classes[4:])
    made = job(spec=replace(job().spec, labels=replace(labels, classes=names)))
    [literal] = re.findall(r'string_value: ("(?:[^"\\]|\\.)*")', config_text(made))
    told = EngineSpec.from_json(json.loads(literal), "the parameter")
    assert told.labels.classes == names
    if importlib.util.find_spec("tritonclient"):
        read = parsed(made).parameters[METADATA_KEY].string_value
        assert EngineSpec.from_json(read, "the parameter").labels.classes == names
