"""Which GPU there is, as a stand-in for libcuda tells it."""

from __future__ import annotations

from typing import Any

import pytest

from fasterseg.errors import DeviceUnavailableError
from fasterseg.runtime import driver
from tests.fake_cuda import FakeDriver


def test_the_gpu_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "_load", lambda: FakeDriver("Orin", (8, 7), cuda=12060))
    gpu = driver.require_gpu("a test")
    assert (gpu.name, gpu.capability, gpu.arch, gpu.cuda) == ("Orin", (8, 7), "sm_87", "12.6")


@pytest.mark.parametrize("fake", [FakeDriver(count=0), FakeDriver(status=100), None])
def test_no_gpu_and_no_driver_are_the_same_error(
    monkeypatch: pytest.MonkeyPatch, fake: FakeDriver | None
) -> None:
    def load() -> Any:
        if fake is None:
            raise OSError("libcuda.so.1: cannot open shared object file")
        return fake

    monkeypatch.setattr(driver, "_load", load)
    assert driver.find_gpu() is None
    with pytest.raises(DeviceUnavailableError, match=r"a test needs.*nvidia-smi.*onnxruntime"):
        driver.require_gpu("a test")
