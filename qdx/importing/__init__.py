"""What other tools have decided or quantized, made of use for one pipeline and one target."""
