"""`qdx completion`: the script with which a shell completes command lines of qdx."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from qdx.cli.shell_scripts import SCRIPTS

__all__ = ["command"]


def command(
    shell: Annotated[
        Literal["bash", "zsh", "fish"], typer.Argument(metavar="SHELL", help="bash, zsh or fish.")
    ],
) -> None:
    """Print the script that completes commands, options and names; its first lines say where it goes."""
    sys.stdout.write(SCRIPTS[shell])
