"""One folder per runtime, and `onnx`, which they share."""
