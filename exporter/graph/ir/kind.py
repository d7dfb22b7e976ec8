"""Kinds of components: what one does in its pipeline. Imports no torch."""

from __future__ import annotations

from typing import Literal

__all__ = ["Kind"]

Kind = Literal["denoiser", "control", "text_encoder", "encoder", "decoder"]
"""What a component does, as its calls show it.

`denoiser`: is told the timestep, and answers with something like what it was given. `control`: is told the timestep
too, and answers with what another component reads. `text_encoder`: reads numbers of tokens before the first of these.
`encoder`: is called before the first of these alone, and reads something else. `decoder`: all others.
"""
