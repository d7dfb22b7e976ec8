"""Tiny trained diffusion pipelines, the scripts that train them and the reader that scores them."""
