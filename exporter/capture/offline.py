"""No network while a pipeline is built: some library classes fetch what their configuration names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def offline() -> Iterator[None]:
    """Puts huggingface_hub into its offline mode, whatever the environment says.

    Its flag is read from the environment when it is imported, which may be long before.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
