"""From a graph to an explicitly quantized, fully typed ONNX file."""
