"""What is no pipeline folder is told for what it is, with the way to make one of it."""

from __future__ import annotations

import pytest

from qdx.exporter.capture.folder import read_pipeline_folder
from qdx.exporter.capture.no_pipeline import check_is_pipeline
from qdx.exporter.errors import InvalidModel
from tests.support.rights import closed_neighbour


def refused(path):
    with pytest.raises(InvalidModel) as caught:
        read_pipeline_folder(path)
    return caught.value


def test_a_name_of_the_hub_comes_with_the_command_that_fetches_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    error = refused("stabilityai/sdxl-turbo")

    assert "hf download stabilityai/sdxl-turbo --local-dir sdxl-turbo" in error.hint


@pytest.mark.parametrize("name", ["dreamshaper_8.safetensors", "old.ckpt"])
def test_a_single_file_is_loaded_with_diffusers_first(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    for path in (tmp_path / name, tmp_path):
        error = refused(path)
        assert "is a single file" in error.message
        assert f'from_single_file("{name}").save_pretrained' in error.hint


def test_weights_in_gguf_are_quantized_already(tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    error = refused(tmp_path / "m.gguf")

    assert "from_single_file" in error.hint
    assert "original model" in error.hint


def test_a_component_and_the_index_lead_to_their_pipeline(tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "model_index.json").write_text("{}")

    assert refused(tmp_path / "unet").hint == f"give {tmp_path}"
    assert refused(tmp_path / "model_index.json").hint == f"give {tmp_path}"


@pytest.mark.parametrize("path", ["nothing", "/nothing/here", "a b/c"])
def test_what_is_nothing_is_no_folder(path):
    assert "is not a folder" in refused(path).message


def test_a_neighbour_that_cannot_be_looked_into_is_no_fault_of_a_name(tmp_path, monkeypatch):
    (tmp_path / "flux").mkdir()
    (tmp_path / "flux" / "model_index.json").write_text("{}")
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "snapshots").mkdir(mode=0)
    with closed_neighbour(tmp_path, monkeypatch):
        with pytest.raises(InvalidModel) as named:
            check_is_pipeline("flxu")
        with pytest.raises(InvalidModel, match="no such file"):
            check_is_pipeline("held")

    assert named.value.hint == "did you mean flux?"
