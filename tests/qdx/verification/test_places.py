"""A verification writes beside what it reads, and each output beside the other."""

from __future__ import annotations

import pytest

from qdx.exporter.errors import UsageError
from qdx.verification.places import check_places


@pytest.fixture
def here(tmp_path):
    for name in ("bundle", "model"):
        (tmp_path / name).mkdir()
        (tmp_path / f"link-to-{name}").symlink_to(tmp_path / name)
    return tmp_path


def check(here, **outputs):
    given = {"report": None, "save_reference": None, **outputs}
    check_places(here / "bundle", here / "model", **given)


@pytest.mark.parametrize("option", ["report", "save_reference"])
@pytest.mark.parametrize(
    "place", ["bundle", "bundle/r", "link-to-bundle/r", "model", "model/r", "link-to-model/r"]
)
def test_no_output_lies_in_what_is_read(here, option, place):
    with pytest.raises(UsageError, match="expected a folder elsewhere"):
        check(here, **{option: here / place})


@pytest.mark.parametrize(
    ("report", "reference"), [("r", "r"), ("r", "r/reference"), ("r/report", "r")]
)
def test_no_output_lies_in_the_other(here, report, reference):
    with pytest.raises(UsageError, match="expected a folder elsewhere"):
        check(here, report=here / report, save_reference=here / reference)


def test_names_that_only_begin_alike_are_other_folders(here):
    check(here, report=here / "bundle-report", save_reference=here / "model-reference")


def test_a_pipeline_in_memory_has_no_folder(here):
    check_places(here / "bundle", object(), report=here / "model", save_reference=None)
