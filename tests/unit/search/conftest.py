from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fasterseg.datasets import DATASETS
from fasterseg.search.settings import TrainSettings
from tests.tiny_data import write_camvid

if TYPE_CHECKING:
    from fasterseg.search.data import Samples

MakeSamples = Callable[[TrainSettings], "Samples"]


@pytest.fixture(scope="session")
def camvid_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CamVid-like folder; nobody writes into it."""
    return write_camvid(tmp_path_factory.mktemp("camvid"))


@pytest.fixture
def tiny_settings() -> TrainSettings:
    """Six steps of two crops in fp32."""
    return TrainSettings(
        dataset="camvid",
        images=12,
        crop="64x64",
        batch=2,
        precision="fp32",
        evaluate_every=6,
        evaluate_frames=0,
    )


@pytest.fixture
def make_samples(camvid_root: Path) -> MakeSamples:
    """Samples of the CamVid-like folder for some settings."""
    from fasterseg.search.data import Samples

    return lambda settings: Samples(DATASETS["camvid"], camvid_root, settings)
