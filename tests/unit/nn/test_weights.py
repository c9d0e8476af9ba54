"""Official checkpoints come in whole or not at all; a pickle with code stays out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch not installed")

from fasterseg.arch.plan import Plan, plan  # noqa: E402
from fasterseg.errors import WeightsError  # noqa: E402
from fasterseg.nn.network import Network  # noqa: E402
from fasterseg.nn.weights import (  # noqa: E402
    from_arrays,
    from_official,
    import_official,
    official_names,
    read_checkpoint,
    to_arrays,
)
from fasterseg.types import Size  # noqa: E402
from tests.parity import fill, small_plan  # noqa: E402
from tests.shared import zoo_genotype  # noqa: E402
from tests.unit.nn.test_network import official_state  # noqa: E402

pytestmark = pytest.mark.torch


def student_plan() -> Plan:
    return plan(zoo_genotype("fasterseg-student"), Size(64, 64), aux_heads=True)


def made_state() -> dict[str, Any]:
    """A state dict with the official keys, without the reference folder."""
    network_plan = student_plan()
    shapes = network_plan.parameter_shapes
    state = {
        official: torch.from_numpy(np.array(fill(ours, shapes[ours])))
        for official, ours in official_names(network_plan).items()
    }
    state["ffm.channel_attention.1.conv.weight"] = torch.zeros(128, 128, 1, 1)
    state["stem.1.bn1.num_batches_tracked"] = torch.tensor(3)
    return state


@pytest.mark.parametrize("name", ["student", "teacher"])
@pytest.mark.parametrize("build", ["eval_build", "train_build"])
def test_official_keys_are_all_known(name: str, build: str) -> None:
    network_plan = plan(zoo_genotype(f"fasterseg-{name}"), Size(64, 64), aux_heads=True)
    arrays = from_official(official_state(name, build), network_plan)
    has_aux = build == "train_build"
    expected = {k for k in network_plan.parameter_shapes if has_aux or not k.startswith("aux.")}
    assert set(arrays) == expected


def test_a_checkpoint_without_training_heads_is_taken_in() -> None:
    state = {k: v for k, v in made_state().items() if not k.startswith(("heads16.", "heads32."))}
    arrays = from_official(state, student_plan())
    assert not any(name.startswith("aux.") for name in arrays)


def test_missing_and_surplus_keys_are_listed() -> None:
    state = made_state()
    del state["arms16.conv.0.weight"]
    state["extra.weight"] = torch.zeros(1)
    with pytest.raises(WeightsError, match=r"missing 1: arms16\.conv\.0\.weight.*extra\.weight"):
        from_official(state, student_plan())


def test_a_wrong_shape_is_named() -> None:
    state = made_state()
    state["heads8.conv_1x1.bias"] = torch.zeros(11)
    with pytest.raises(WeightsError, match=r"heads8\.conv_1x1\.bias is \(11,\), not \(19,\)"):
        from_official(state, student_plan())


def test_shared_cells_that_disagree_are_refused() -> None:
    state = made_state()
    state["cells.0-1._op._op.conv1.weight"] = state["cells.0-1._op._op.conv1.weight"] + 1
    with pytest.raises(WeightsError, match=r"cells\.0-1.*damaged"):
        from_official(state, student_plan())


def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(trace),)

    file = tmp_path / "evil.pt"
    torch.save({"stem.0.conv.0.weight": Payload()}, file)
    with pytest.raises(WeightsError, match="can run code"):
        import_official(file, student_plan())
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04broken"])
def test_files_that_are_no_checkpoints_are_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.pt"
    file.write_bytes(content)
    with pytest.raises(WeightsError):
        read_checkpoint(file)


def test_something_other_than_a_state_dict_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.pt"
    torch.save({"state_dict": {"a": torch.zeros(1)}}, file)
    with pytest.raises(WeightsError, match="plain state dict"):
        read_checkpoint(file)


def test_arrays_go_in_and_come_out_unchanged() -> None:
    network = Network(small_plan())
    arrays = {
        k: np.asarray(fill(k, s), np.float32) for k, s in network.plan.parameter_shapes.items()
    }
    from_arrays(network, arrays)
    back = to_arrays(network)
    assert set(back) == set(arrays)
    assert all(np.array_equal(back[name], arrays[name]) for name in arrays)
