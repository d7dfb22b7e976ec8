"""NNCF as the quantizer of OpenVINO's IR, for plans that name it."""
