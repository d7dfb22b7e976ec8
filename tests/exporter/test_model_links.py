"""Links of the hub's cache lead to blobs of the same repository, and hard links stay in one model; all else is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qdx.exporter.capture.folder import read_pipeline_folder
from qdx.exporter.capture.skeleton import build_skeleton
from qdx.exporter.errors import InvalidModel
from qdx.exporter.files import load_json, open_regular, read_bytes, safe_child, sha256_file
from tests.support.tiny import build

NAME = "0123456789abcdef" * 4


@pytest.fixture
def snapshot(tmp_path):
    """A snapshot of the cache with one file, `unet/config.json`."""
    repository = tmp_path / "models--owner--name"
    (repository / "blobs").mkdir(parents=True)
    (repository / "blobs" / NAME).write_text('{"a": 1}')
    folder = repository / "snapshots" / "abc"
    (folder / "unet").mkdir(parents=True)
    (folder / "unet" / "config.json").symlink_to(f"../../../blobs/{NAME}")
    return folder


def test_a_link_to_a_blob_of_its_repository_is_read(snapshot):
    path = safe_child(snapshot, "unet/config.json", in_model=True)

    assert path == snapshot / "unet" / "config.json"
    assert load_json(path, in_model=True) == {"a": 1}
    assert read_bytes(path, 100, in_model=True) == b'{"a": 1}'
    assert len(sha256_file(path, in_model=True)) == 64


def test_the_snapshot_may_be_reached_through_a_link(snapshot, tmp_path):
    (tmp_path / "model").symlink_to(snapshot)
    path = safe_child(tmp_path / "model", "unet/config.json", in_model=True)

    assert load_json(path, in_model=True) == {"a": 1}


def test_a_link_that_is_spelled_in_full_is_read(snapshot):
    path = snapshot / "unet" / "config.json"
    path.unlink()
    path.symlink_to(snapshot.parents[1] / "blobs" / NAME)

    assert load_json(path, in_model=True) == {"a": 1}


def test_such_links_are_read_in_models_alone(snapshot):
    path = snapshot / "unet" / "config.json"
    with pytest.raises(InvalidModel, match="is a symbolic link"):
        open_regular(path)
    with pytest.raises(InvalidModel, match="is a symbolic link"):
        safe_child(snapshot, "unet/config.json")


def _to_another_repository(path: Path) -> str:
    other = path.parents[3].parent / "models--other--name" / "blobs"
    other.mkdir(parents=True)
    (other / NAME).write_text("{}")
    return f"../../../../models--other--name/blobs/{NAME}"


def _to_a_linked_blob(path: Path) -> str:
    blobs = path.parents[3] / "blobs"
    (blobs / "linked").symlink_to(path.parents[4] / "secret")
    return "../../../blobs/linked"


def _to_linked_blobs(path: Path) -> str:
    blobs = path.parents[3] / "blobs"
    blobs.rename(path.parents[4] / "elsewhere")
    blobs.symlink_to(path.parents[4] / "elsewhere")
    return f"../../../blobs/{NAME}"


ELSEWHERE = {
    "a secret": lambda path: str(path.parents[4] / "secret"),
    "above the blobs": lambda _: f"../../../blobs/../../{NAME}",
    "the folder of blobs": lambda _: "../../../blobs",
    "below the blobs": lambda _: f"../../../blobs/x/{NAME}",
    "beside it": lambda _: "other.json",
    "a missing blob": lambda _: "../../../blobs/missing",
    "another repository": _to_another_repository,
    "a blob that is a link": _to_a_linked_blob,
    "blobs that are a link": _to_linked_blobs,
}


@pytest.mark.parametrize("where", ELSEWHERE)
def test_a_link_to_anywhere_else_is_refused(snapshot, tmp_path, where):
    (tmp_path / "secret").write_text("{}")
    path = snapshot / "unet" / "config.json"
    (path.parent / "other.json").write_text("{}")
    target = ELSEWHERE[where](path)
    path.unlink()
    path.symlink_to(target)

    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(InvalidModel, match=r"symbolic link|not found|expected a file"):
        load_json(path, in_model=True)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_repository_outside_a_cache_has_no_blobs(tmp_path):
    folder = tmp_path / "model" / "unet"
    folder.mkdir(parents=True)
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / NAME).write_text("{}")
    (folder / "config.json").symlink_to(f"../../blobs/{NAME}")

    with pytest.raises(InvalidModel, match="is a symbolic link"):
        load_json(folder / "config.json", in_model=True)


def test_a_pipeline_in_the_cache_is_built(tmp_path):
    plain = build("sd", tmp_path / "plain")
    repository = tmp_path / "models--owner--name"
    (repository / "blobs").mkdir(parents=True)
    snapshot = repository / "snapshots" / "abc"
    for number, file in enumerate(sorted(path for path in plain.rglob("*") if path.is_file())):
        blob = repository / "blobs" / f"{number:040x}"
        file.rename(blob)
        link = snapshot / file.relative_to(plain)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))

    assert {"unet", "vae"} <= build_skeleton(read_pipeline_folder(snapshot)).modules.keys()


def test_names_of_one_file_inside_a_model_are_read(tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "model_index.json").write_text("{}")
    (tmp_path / "unet" / "config.json").write_text('{"a": 1}')
    (tmp_path / "copy.json").hardlink_to(tmp_path / "unet" / "config.json")

    assert load_json(tmp_path / "unet" / "config.json", in_model=True) == {"a": 1}
    with pytest.raises(InvalidModel, match="2 hard links"):
        load_json(tmp_path / "unet" / "config.json")


def test_a_name_outside_the_model_is_refused(tmp_path):
    (tmp_path / "model" / "unet").mkdir(parents=True)
    (tmp_path / "model" / "model_index.json").write_text("{}")
    (tmp_path / "secret").write_text("{}")
    (tmp_path / "model" / "unet" / "config.json").hardlink_to(tmp_path / "secret")

    with pytest.raises(InvalidModel, match="2 hard links"):
        load_json(tmp_path / "model" / "unet" / "config.json", in_model=True)
