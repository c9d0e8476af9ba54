"""Plan and weights to ONNX, with onnx and NumPy only; no torch."""
