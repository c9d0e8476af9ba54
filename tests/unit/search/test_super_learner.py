from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fasterseg.arch.plan import plan  # noqa: E402
from fasterseg.arch.space import SearchSpace  # noqa: E402
from fasterseg.errors import ConfigError  # noqa: E402
from fasterseg.nn.network import Network  # noqa: E402
from fasterseg.nn.weights import from_arrays  # noqa: E402
from fasterseg.search.distributed import Group  # noqa: E402
from fasterseg.search.settings import LossSettings, OptimizerSettings, TrainSettings  # noqa: E402
from fasterseg.search.super_learner import SuperNetLearner, thinned  # noqa: E402
from fasterseg.search.trainer import Trainer  # noqa: E402
from fasterseg.types import Size  # noqa: E402
from tests.unit.search.conftest import MakeSamples  # noqa: E402

pytestmark = pytest.mark.torch

SPACE = SearchSpace(
    layers=3, widths=(4, 6), stem_widths=(4, 6), head_widths=(4,), final_rates=((16,), (8,)),
    num_classes=11,
)  # fmt: skip
SHARES = np.full(11, 1 / 11)

Batch = tuple[Any, Any]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums in the same order, whatever ran before in this process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def batches(make_samples: MakeSamples, tiny_settings: TrainSettings) -> list[Batch]:
    stream = make_samples(tiny_settings).batches()
    return [next(stream) for _ in range(4)]


def learner(settings: TrainSettings, **more: Any) -> SuperNetLearner:
    return SuperNetLearner(settings, SPACE, SHARES, **more)


def train(trained: SuperNetLearner, batches: list[Batch], first: int = 0) -> list[dict[str, float]]:
    return [
        trained.step(first + n, images, labels, 1e-2, 0.5)
        for n, (images, labels) in enumerate(batches)
    ]


def assert_same(a: SuperNetLearner, b: SuperNetLearner) -> None:
    for one, other in ((a.network, b.network), (a.average, b.average)):
        theirs = other.state_dict()
        for name, value in one.state_dict().items():
            assert torch.equal(value, theirs[name]), name


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_steps_in_two_parts_end_with_the_same_bits(
    tiny_settings: TrainSettings, batches: list[Batch], tmp_path: Path, ema: float, precision: str
) -> None:
    settings = replace(tiny_settings, ema=ema, precision=precision)  # type: ignore[arg-type]
    whole, first, second = (learner(settings) for _ in range(3))
    losses = train(whole, batches)
    begun = train(first, batches[:2])
    torch.save(first.state(), tmp_path / "state.pt")
    second.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    torch.rand(3)
    assert begun + train(second, batches[2:], first=2) == losses
    assert_same(whole, second)
    assert (whole.average is whole.network) is (ema == 0)


def test_a_run_of_the_trainer_goes_on_with_the_same_bits(
    make_samples: MakeSamples, tiny_settings: TrainSettings, tmp_path: Path
) -> None:
    settings = replace(tiny_settings, images=8)

    def trainer(folder: str, layers: int = 3) -> Trainer:
        samples, trained = make_samples(settings), learner(settings)
        subject = {"space": {"layers": layers}}
        return Trainer(settings, subject, samples, tmp_path / folder, learner=trained)

    whole, first = trainer("whole"), trainer("parts")
    assert whole.run()
    assert not first.run(stop=lambda: first.step >= 2)
    second = trainer("parts")
    assert second.resume()
    assert second.run()
    for name, value in whole.average.state_dict().items():
        assert torch.equal(value, second.average.state_dict()[name]), name
    with pytest.raises(ConfigError, match=r"holds space [0-9a-f]{12}, not space"):
        trainer("parts", layers=4).resume()


def test_networks_of_a_step_follow_from_its_number_alone(tiny_settings: TrainSettings) -> None:
    one, other = learner(tiny_settings), learner(tiny_settings)
    one.subnets(3)
    names = [name for name, _ in one.subnets(5)]
    assert names == ["largest", "smallest", "random", "random"]
    assert one.subnets(5) == other.subnets(5)
    assert one.subnets(5) != one.subnets(6)
    assert learner(replace(tiny_settings, seed=9)).subnets(5) != one.subnets(5)


def test_training_learns(tiny_settings: TrainSettings, batches: list[Batch]) -> None:
    settings = replace(tiny_settings, loss=LossSettings(ohem=1.0))
    trained = learner(settings)
    images, labels = batches[0]
    losses = [trained.step(n, images, labels, 5e-3, 0.0) for n in range(16)]
    assert set(losses[0]) == {"total", "largest", "smallest", "random", "grad_norm"}
    before, after = (sum(each["largest"] for each in part) for part in (losses[:4], losses[-4:]))
    assert after < 0.6 * before


def test_the_largest_network_teaches_the_others(
    tiny_settings: TrainSettings, batches: list[Batch]
) -> None:
    # Without a label nothing but the divergence from the largest one is left.
    images, labels = batches[0]
    nothing = torch.full_like(labels, 255)
    taught = learner(tiny_settings).step(0, images, nothing, 1e-3, 0.0)
    assert taught["largest"] == 0
    assert taught["smallest"] > 0
    by_labels = learner(tiny_settings, distill=0.0).step(0, images, nothing, 1e-3, 0.0)
    assert by_labels["smallest"] == 0
    half = learner(tiny_settings, distill=0.5).step(0, images, nothing, 1e-3, 0.0)
    assert half["smallest"] == pytest.approx(taught["smallest"] / 2, rel=1e-5)


def test_numbers_that_are_not_finite_change_no_weight(
    tiny_settings: TrainSettings, batches: list[Batch]
) -> None:
    trained = learner(tiny_settings)
    with torch.no_grad():
        for rate in (8, 16):
            trained.network.get_parameter(f"head.{rate}.project.bias").fill_(float("nan"))
    before = {name: p.clone() for name, p in trained.network.named_parameters()}
    values = trained.step(0, *batches[0], 1e-2, 0.0)
    assert not np.isfinite(values["total"])
    for name, parameter in trained.network.named_parameters():
        torch.testing.assert_close(parameter, before[name], atol=0, rtol=0, equal_nan=True)


def test_frozen_norms_keep_their_statistics(
    tiny_settings: TrainSettings, batches: list[Batch]
) -> None:
    trained = learner(replace(tiny_settings, frozen_norm=True))
    train(trained, batches[:1])
    means = [b for n, b in trained.network.named_buffers() if n.endswith("running_mean")]
    assert all(torch.equal(mean, torch.zeros_like(mean)) for mean in means)


def test_a_network_taken_out_scores_as_it_did_inside(
    tiny_settings: TrainSettings, batches: list[Batch]
) -> None:
    trained = learner(tiny_settings)
    train(trained, batches[:2])
    genotype = trained.subnets(7)[2][1]
    laid_out = plan(genotype, Size(64, 64))
    network = Network(laid_out).eval()
    from_arrays(network, trained.average.extract(laid_out))
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        inside = trained.average.eval().logits8(laid_out, x)
        torch.testing.assert_close(network.logits8(x), inside, atol=1e-5, rtol=0)


def test_settings_without_sense_are_refused(tiny_settings: TrainSettings) -> None:
    with pytest.raises(ConfigError, match=r"distill = 1\.5 a share"):
        learner(tiny_settings, distill=1.5)
    with pytest.raises(ConfigError, match="random_subnets = -1 must"):
        learner(tiny_settings, random_subnets=-1)


def test_processes_that_draw_differently_are_told(
    tiny_settings: TrainSettings, batches: list[Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = learner(tiny_settings)
    monkeypatch.setattr(Group, "same", lambda *_: False)
    with pytest.raises(ConfigError, match="different networks for step 4; start all"):
        trained.step(4, *batches[0], 1e-2, 0.0)


def test_labels_are_thinned_where_align_corners_puts_its_points() -> None:
    columns = torch.arange(32).expand(1, 16, 32)
    assert thinned(columns, 16, 32).equal(columns)
    thin = thinned(columns, 2, 4)
    assert thin.tolist() == [[[0, 10, 21, 31]] * 2]
    rows = torch.arange(16)[:, None].expand(1, 16, 32)
    assert thinned(rows, 4, 4)[0, :, 0].tolist() == [0, 5, 10, 15]


def test_weights_that_no_network_used_stay_as_they_are(
    tiny_settings: TrainSettings, batches: list[Batch]
) -> None:
    settings = replace(tiny_settings, optimizer=OptimizerSettings(weight_decay=0.1))
    trained = learner(settings, random_subnets=0)
    used = {op for _, genotype in trained.subnets(0) for b in genotype.branches for op in b.ops}
    idle = {"conv", "conv_downup", "conv_2x", "conv_2x_downup"} - used
    before = {name: p.clone() for name, p in trained.network.named_parameters()}
    train(trained, batches[:1])
    for name, parameter in trained.network.named_parameters():
        if name.startswith("cells.") and name.split(".")[3] in idle:
            assert torch.equal(parameter, before[name]), name
