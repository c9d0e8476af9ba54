"""Running an engine: uint8 BGR frames in, uint8 class ids out. No torch."""

import os

# From 1.31 on ONNX Runtime reports its use to its makers, from the moment it is imported. A camera
# in a house is nobody's business. ORT_DISABLE_TELEMETRY=0 allows it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
