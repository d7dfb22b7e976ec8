"""How weights are stored and rounded: formats listed in `registry`, each with one interface, and methods in `rounding`."""
