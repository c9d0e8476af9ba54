"""Open an engine and label one frame, in a process that has done nothing else; times as one line.

python benchmarks/gpu_cold.py MODEL PRECISION DEVICE HxW
"""

from __future__ import annotations

import json
import sys
import time

BEGIN = time.perf_counter()


def main() -> None:
    model, precision, device, text = sys.argv[1:5]
    import numpy as np

    from fasterseg.runtime.select import EngineRequest, open_engine
    from fasterseg.types import Size

    size = Size.parse(text)
    frames = np.random.default_rng(0).integers(0, 256, (1, *size, 3), dtype=np.uint8)
    request = EngineRequest(
        model=model, engine="torch", precision=precision, device=device, size=size
    )
    imported = time.perf_counter()
    notes: list[str] = []
    engine = open_engine(request, size, notes.append)
    opened = time.perf_counter()
    engine.run(frames)
    first = time.perf_counter()
    engine.run(frames)
    second = time.perf_counter()
    engine.close()
    times = {
        "import_s": imported - BEGIN,
        "open_s": opened - imported,
        "first_labels_s": first - opened,
        "second_labels_s": second - first,
        "open_to_first_labels_s": first - imported,
        "notes": notes,
    }
    print(json.dumps(times))


if __name__ == "__main__":
    main()
