"""OpenVINO: `lower` writes the IR, `run` executes it, `refuse` says what cannot be done."""
