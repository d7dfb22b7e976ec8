"""Names of pictures: refused before anything is drawn, and never a reason to lose what is."""

from __future__ import annotations

import pytest
from PIL import Image

from qdx.cli.pictures import check_names, check_output, expected_count, free_names, write_picture
from qdx.exporter.errors import StorageError, UsageError

MANY = 10**12


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ({}, 1),
        ({"prompt": "a cat"}, 1),
        ({"prompt": ["a cat", "a dog"], "num_images_per_prompt": 3}, 6),
        ({"class_labels": [1, 7, 9]}, 3),
        ({"batch_size": 4}, 4),
        ({"batch_size": -1, "num_images_per_prompt": None}, 1),
    ],
)
def test_a_call_tells_how_many_pictures_it_makes(arguments, count):
    assert expected_count(arguments) == count


@pytest.mark.parametrize("name", ["file/x.png", "file/new/x.png"])
def test_a_place_that_can_be_no_folder_is_refused(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file` is not a folder"):
        check_output(tmp_path / name)


def test_folders_that_are_not_there_are_made_later(tmp_path):
    check_output(tmp_path / "new" / "folder" / "x.png")
    check_names(tmp_path / "new" / "x.png", MANY, force=False)


@pytest.mark.parametrize(
    ("taken", "refused"),
    [("x-3.png", True), ("x.png", False), ("x-03.png", False), ("x-3.jpg", False), ("y-3.png", False), ("x-4.png", False)],
)  # fmt: skip
def test_the_numbered_names_of_several_are_looked_at_and_no_others(tmp_path, taken, refused):
    (tmp_path / taken).write_text("")
    if refused:
        with pytest.raises(UsageError, match="exists"):
            check_names(tmp_path / "x.png", 4, force=False)
    check_names(tmp_path / "x.png", 3, force=False)
    check_names(tmp_path / "x.png", 4, force=True)


def test_more_pictures_than_a_list_can_hold_are_no_trouble(tmp_path):
    (tmp_path / "x-5.png").write_text("")
    with pytest.raises(UsageError, match=r"x-5\.png` exists"):
        check_names(tmp_path / "x.png", MANY, force=False)


@pytest.mark.parametrize("count", [1, 2])
def test_folders_are_refused_with_force_too(tmp_path, count):
    (tmp_path / ("x.png" if count == 1 else "x-1.png")).mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        check_names(tmp_path / "x.png", count, force=True)


def test_a_link_to_nothing_is_taken(tmp_path):
    (tmp_path / "x.png").symlink_to(tmp_path / "nothing")
    with pytest.raises(UsageError, match="exists"):
        check_names(tmp_path / "x.png", 1, force=False)
    assert free_names(tmp_path / "x.png", 1, force=False) == [tmp_path / "x-1.png"]


def test_a_picture_that_cannot_be_written_is_a_storage_failure(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        write_picture(Image.new("RGB", (2, 2)), tmp_path / "file" / "x.png")
