"""`Lanes`: the launches of a schedule on several CUDA streams, ordered by events.

Why no value is overwritten while it is still read. Torch's caching allocator keeps freed memory
for the stream that was current when it was taken, and gives it to the next taker on that stream
without waiting, since a stream works in order. So:

- A value that only its own lane reads may be freed behind its last reader: whoever gets its
  memory comes later on the same stream.
- A value that another lane reads is held until all lanes have come together on lane 0. One taken
  on lane 0 then goes to work behind that point. One taken on a side lane goes to work of the next
  pass, whose side lanes start behind an event of lane 0, which the readers are ahead of. That is
  also why passes of one network follow one another on the same stream, or wait.
- In a capture the same order becomes the edges of the graph. An allocation belongs to the graph's
  own memory once its stream takes part in the capture, and a side lane does so by its first wait,
  ahead of its first allocation. Each replay is behind the one before it on its stream.

Every launch of a side lane leads to the output, so the last thing a side lane makes is waited for
and no capture ends with a lane still open.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from fasterseg.nn.schedule import Launch, Schedule


class Lanes:
    """Streams and events for a schedule; lane 0 is whatever stream is current.

    Args:
        schedule: of the launches.
        device: where the streams are made.
    """

    def __init__(self, schedule: Schedule, device: torch.device) -> None:
        used = {launch.lane for launch in schedule.launches} - {0}
        self._awaited = schedule.awaited
        cuda: Any = torch.cuda  # its streams and events have no types
        self._sides = {lane: cuda.Stream(device) for lane in sorted(used)}
        self._events = {value: cuda.Event() for value in sorted(schedule.awaited)}

    @contextlib.contextmanager
    def around(self, launch: Launch, main: torch.cuda.Stream) -> Iterator[None]:
        """Make a launch's lane current, behind what it waits for; then mark what it made.

        Args:
            launch: is enqueued inside.
            main: stream of lane 0.
        """
        stream = self._sides.get(launch.lane, main)
        for value in launch.waits:
            stream.wait_event(self._events[value])
        with torch.cuda.stream(stream):
            yield
        if launch.id in self._awaited:
            self._events[launch.id].record(stream)
