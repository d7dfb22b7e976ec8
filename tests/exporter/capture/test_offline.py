"""A configuration cannot make the libraries fetch anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import constants

from qdx.exporter.capture.folder import read_pipeline_folder
from qdx.exporter.capture.offline import offline
from qdx.exporter.errors import InvalidModel
from tests.support.tiny import build


def test_the_hub_is_offline_whatever_the_environment_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with offline():
        assert constants.is_offline_mode()
    assert not constants.is_offline_mode()


@pytest.mark.parametrize(
    "extra",
    [
        {"backbone": "facebook/dinov2-small", "use_pretrained_backbone": True},
        {"backbone": "facebook/dinov2-small"},
        {"use_timm_backbone": True},
    ],
)
def test_a_model_named_inside_a_configuration_is_refused(
    extra: dict[str, object], tmp_path: Path
) -> None:
    folder = build("ddpm", tmp_path / "ddpm")
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **extra}))

    with pytest.raises(InvalidModel, match="asks for a model from elsewhere"):
        read_pipeline_folder(folder)
