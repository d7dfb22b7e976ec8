from __future__ import annotations

import pytest

from qdx.backends.site_table import PARTS, SiteTable
from qdx.exporter.errors import InvalidBundle


def test_what_is_written_is_read() -> None:
    table = SiteTable({"b/MatMul": ["b"], "a/MatMul": ["a.qk", "a.pv", "a.qk"]})

    read = SiteTable.read(table.text, source="model.onnx")

    assert table.text == '{"a/MatMul":["a.qk","a.pv"],"b/MatMul":["b"]}'
    assert read.text == table.text
    assert set(read.names) == {"a/MatMul", "b/MatMul"}
    assert read.sites("a/MatMul") == ("a.qk", "a.pv")


@pytest.mark.parametrize("name", ["", "a", "a/MatMul_1", None])
def test_other_names_compute_none(name: str | None) -> None:
    assert SiteTable({"a/MatMul": ["a"]}).sites(name) == ()


def test_an_artifact_without_one_is_to_be_exported_again() -> None:
    with pytest.raises(InvalidBundle, match=r"`m`: has no table of sites, `qdx.parts`") as caught:
        SiteTable.read(None, source="m", key=PARTS)

    assert caught.value.hint == "export again"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "`model.xml: qdx.sites:1:2`: the text ends, expected `}`"),
        ("[]", "`model.xml: qdx.sites:1:1`: found an array, expected an object"),
        ('{"a/MatMul": "a"}', "`model.xml: qdx.sites`: `a/MatMul` has no list of sites"),
        ('{"a/MatMul": ["a", 1]}', "`a/MatMul` has no list of sites"),
        ('{"a": ["a"], "a": ["b"]}', "`a`"),
    ],
)
def test_a_malformed_one_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidBundle, match=message):
        SiteTable.read(text, source="model.xml")
