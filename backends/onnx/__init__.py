"""Lowering of a graph to ONNX, shared by the backends whose runtimes read it."""
