"""`Finding`: one line of what `fasterseg doctor` found out about this machine."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["ok", "missing", "broken", "not yet"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what it is, such as "opencv" or "encoder H.264".
        state: "ok"; "missing" (an option that is not there); "broken" (there and does not work,
            or needed and not there); "not yet" (this version of fasterseg cannot use it).
        detail: version, path, or the reason.
        remedy: the command line that mends it; "" where there is none.
        needed: whether segmenting a file with the default model depends on it.
    """

    name: str
    state: State
    detail: str = ""
    remedy: str = ""
    needed: bool = False

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)
