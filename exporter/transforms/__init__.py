"""Scale and rounding mathematics, and quantized graphs from a placement."""
