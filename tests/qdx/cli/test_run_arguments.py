"""What `qdx run` wants before it calls a pipeline."""

from __future__ import annotations

from typing import Any

import pytest

from qdx.cli.run import _check_arguments
from qdx.exporter.errors import UsageError


class Pipeline:
    """Takes a prompt, or its embeddings."""

    def __call__(self, prompt: str | None = None, prompt_embeds: Any = None) -> None: ...


def test_a_prompt_or_its_embeddings_are_needed() -> None:
    _check_arguments(Pipeline(), {"prompt": "a fox"})
    _check_arguments(Pipeline(), {"prompt_embeds": {"file": "e.safetensors"}})

    with pytest.raises(UsageError, match="needs --prompt"):
        _check_arguments(Pipeline(), {"prompt_embeds": None})
