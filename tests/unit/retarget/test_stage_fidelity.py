"""Whether the supernet orders networks as training does."""

from __future__ import annotations

import pytest

from fasterseg.retarget.stage_fidelity import fidelity


def entries(*mious: float) -> list[dict[str, object]]:
    return [{"digest": str(number), "miou": miou} for number, miou in enumerate(mious)]


def test_tau_is_of_the_networks_that_are_in_the_supernet() -> None:
    scores = {"0": 30.0, "1": 31.0, "2": 32.0}
    told = fidelity(scores, [*entries(50.0, 52.0, 51.0), {"digest": "released", "miou": 60.0}])
    assert told == {"networks": 3, "tau": pytest.approx(1 / 3, abs=1e-3)}


def test_seeds_of_a_network_count_as_their_mean() -> None:
    scores = {"0": 30.0, "1": 31.0, "2": 32.0}
    again = [{"digest": "0", "miou": 58.0}]
    assert fidelity(scores, [*entries(50.0, 52.0, 53.0), *again])["tau"] == pytest.approx(
        -1 / 3, abs=1e-3
    )
    assert fidelity(scores, entries(50.0, 52.0, 53.0))["tau"] == 1.0


def test_two_networks_have_no_order_worth_a_number() -> None:
    assert fidelity({"0": 1.0, "1": 2.0}, entries(1.0, 2.0)) == {"networks": 2, "tau": None}
