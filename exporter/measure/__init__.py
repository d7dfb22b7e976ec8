"""How far artifacts are from their reference, and graphs of which some sites are quantized."""
