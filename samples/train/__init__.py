"""Training scripts, one per sample: ``vae``, ``text``, ``shapes``, ``shapes_mmdit``, ``digits``."""
