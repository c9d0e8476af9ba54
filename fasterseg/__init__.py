"""fasterseg: real-time semantic segmentation you can deploy, measure and retarget.

>>> import fasterseg
>>> segmenter = fasterseg.load()
>>> for result in segmenter.stream("street.mp4"):
...     result.mask, result.labels.classes, result.times.engine_ms
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from fasterseg.arch.genotype import Genotype
    from fasterseg.arch.latency import LatencyTable
    from fasterseg.stream.segmenter import Segmenter, load

__version__ = "0.1.0"

__all__ = ["Genotype", "LatencyTable", "Segmenter", "__version__", "load"]

# Importing fasterseg must cost nothing: a public name is imported when it is first used.
_PUBLIC: Final[dict[str, str]] = {
    "Genotype": "fasterseg.arch.genotype:Genotype",
    "LatencyTable": "fasterseg.arch.latency:LatencyTable",
    "Segmenter": "fasterseg.stream.segmenter:Segmenter",
    "load": "fasterseg.stream.segmenter:load",
}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'fasterseg' has no attribute '{name}'")
    from fasterseg.registry import resolve

    return resolve(_PUBLIC, "public name", name)
