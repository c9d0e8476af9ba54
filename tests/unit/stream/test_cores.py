from __future__ import annotations

import threading
from collections.abc import Iterator

import cv2
import pytest

from fasterseg.cores import usable_cores
from fasterseg.stream.cores import FEW_CORES, shared_cores


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    yield
    cv2.setNumThreads(before)


def test_opencv_keeps_to_one_thread_where_cores_are_few_and_gets_its_threads_back() -> None:
    with shared_cores(FEW_CORES):
        assert cv2.getNumThreads() == 1
        with shared_cores(1):
            assert cv2.getNumThreads() == 1
        assert cv2.getNumThreads() == 1
    assert cv2.getNumThreads() == 2


def test_threads_come_back_after_an_error() -> None:
    with pytest.raises(ValueError, match="broken"), shared_cores(2):
        raise ValueError("broken")
    assert cv2.getNumThreads() == 2


def test_nothing_changes_where_there_are_cores_for_all() -> None:
    with shared_cores(FEW_CORES + 1):
        assert cv2.getNumThreads() == 2


def test_the_last_of_several_users_puts_the_threads_back() -> None:
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with shared_cores(2):
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with shared_cores(2):
        thread.start()
        assert inside.wait(10)
    assert cv2.getNumThreads() == 1
    leave.set()
    thread.join()
    assert cv2.getNumThreads() == 2


def test_cores_are_counted() -> None:
    assert usable_cores() >= 1
