"""Components whose configuration says that float16 overflows in them."""

from __future__ import annotations

from pathlib import Path

from qdx.exporter.capture.folder import Component, PipelineFolder
from qdx.exporter.capture.upcasts import upcast_components


def test_only_what_a_configuration_says_is_asked():
    configs = {"vae": {"force_upcast": True}, "vq": {"force_upcast": False}, "old": {"scale": 1}}
    parts = {name: Component(name, "diffusers", "A", Path(), c) for name, c in configs.items()}

    found = upcast_components(PipelineFolder(Path(), "P", parts, (), {}))

    assert found == {"vae"}
