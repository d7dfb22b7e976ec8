"""ONNX Runtime: `lower` writes model.onnx, `run` executes it, `refuse` says what cannot be done."""
