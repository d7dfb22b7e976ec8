"""How a float graph becomes a quantized one: transforms, each with its own JSON and tensors, listed in `registry`."""
