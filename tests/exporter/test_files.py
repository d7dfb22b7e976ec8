from __future__ import annotations

import json
import math
import os
import socket
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdx.exporter import files
from qdx.exporter.errors import InternalError, InvalidModel, InvalidPlan, StorageError
from qdx.exporter.files import (
    CONFIG,
    dump_json,
    load_json,
    open_regular,
    parse_json,
    position_of,
    read_bytes,
    read_text,
    safe_child,
    sha256_file,
)
from qdx.exporter.strict_json import positions_of

BAD_JSON = {
    "duplicate key": ('{"a": 1,\n  "a": 2}', "2:3", "`a` appears twice"),
    "duplicate key, escaped": ('{"a": 1, "\\u0061": 2}', "1:10", "`a` appears twice"),
    "duplicate key, nested": ('{"x": [{"b": 1, "b": 1}]}', "1:17", "`b` appears twice"),
    "NaN": ('{"a": NaN}', "1:7", "NaN"),
    "Infinity": ('{"a": Infinity}', "1:7", "Infinity"),
    "-Infinity": ('{"a": [0, -Infinity]}', "1:11", "-Infinity"),
    "overflow": ('{"a": 1e999}', "1:7", "out of range"),
    "4000 digits": ('{"a": ' + "9" * 4000 + "}", "1:7", "4000 characters"),
    "2**53": ('{"a": 9007199254740992}', "1:7", "9007199254740992"),
    "-2**53": ('{"a": -9007199254740992}', "1:7", "9007199254740992"),
    "depth 33": ('{"a":' * 33 + "1" + "}" * 33, "1:161", "deeper than 32"),
    "depth 100000, open": ("[" * 100_000, "1:33", "deeper than 32"),
    "depth 100000": ('{"a":' * 100_000 + "1" + "}" * 100_000, "1:161", "deeper than 32"),
    "NUL in text": ('{"a": "x\\u0000"}', "1:7", "NUL"),
    "NUL in key": ('{"\\u0000": 1}', "1:2", "NUL"),
    "raw NUL": ('{"a": "\x00"}', "1:8", "inside of text"),
    "lone surrogate": ('{"a": "\\ud800"}', "1:7", "surrogate"),
    "lone surrogate in key": ('{"\\udfff": 1}', "1:2", "surrogate"),
    "byte order mark": ('\ufeff{"a": 1}', "1:1", "BOM"),
    "trailing comma": ('{"a": 1,}', "1:8", "a comma before `}`"),
    "trailing text": ('{"a": 1} {}', "1:10", "behind the end"),
    "comment": ('{"a": 1 /* b */}', "1:9", "a comment"),
    "single quotes": ("{'a': 1}", "1:2", "single quotes"),
    "empty": ("", "1:1", "expected JSON"),
    "cut": ('{"a": "b', "1:7", "text without an end"),
    "array": ("[]", "1:1", "an array"),
    "text": ('"a"', "1:1", "text"),
    "number": ("1", "1:1", "a number"),
    "null": ("null", "1:1", "null"),
}


@pytest.mark.parametrize("case", BAD_JSON)
def test_bad_json_is_refused_with_its_place(case):
    text, place, reason = BAD_JSON[case]
    with pytest.raises(InvalidPlan) as caught:
        parse_json(text, source="plan.json", error=InvalidPlan)
    assert caught.value.message.startswith(f"`plan.json:{place}`: ")
    assert reason.lower() in caught.value.message.lower()
    assert len(caught.value.message) < 500


def test_depth_32_is_allowed():
    parse_json('{"a":' * 32 + "1" + "}" * 32, source="x")


def test_largest_integer_is_allowed():
    assert parse_json('{"a": 9007199254740991}', source="x") == {"a": 2**53 - 1}


def test_config_rules_allow_what_other_libraries_write():
    text = '{"lambda_min_clipped": -Infinity, "model_max_length": 1000000000000000019884624838656}'
    value = parse_json(text, source="x", rules=CONFIG)
    assert value == {"lambda_min_clipped": -math.inf, "model_max_length": int(1e30)}


@pytest.mark.parametrize("case", ["NaN", "overflow", "4000 digits", "duplicate key", "depth 33"])
def test_config_rules_still_refuse(case):
    with pytest.raises(InvalidModel):
        parse_json(BAD_JSON[case][0], source="x", rules=CONFIG)


def test_refusal_is_fast():
    text = '{"a": [' + "1," * 500_000 + "NaN]}"
    started = time.process_time()
    with pytest.raises(InvalidModel):
        parse_json(text, source="x")
    assert (
        time.process_time() - started < 10
    )  # one that went through the text for each fault would take minutes


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text("abc", max_size=2), plain, max_size=4))
def test_canonical_json_round_trips(value):
    data = dump_json(value)
    assert data.endswith(b"\n")
    assert data.isascii()
    again = parse_json(data.decode(), source="x")
    assert again == value
    assert dump_json(again) == data


@given(st.text('{}[],:"\\ \n01-.eEaNIu\ud800\x00', max_size=30))
def test_any_text_is_accepted_or_refused_with_a_place(text):
    try:
        accepted = parse_json(text, source="x")
    except InvalidModel as error:
        assert error.message.startswith("`x:")  # noqa: PT017
    else:
        assert json.loads(text) == accepted


def test_canonical_json_does_not_depend_on_order():
    assert dump_json({"b": 1, "a": [2]}) == b'{\n  "a": [\n    2\n  ],\n  "b": 1\n}\n'
    assert dump_json({"b": 1, "a": [2]}) == dump_json({"a": [2], "b": 1})


@pytest.mark.parametrize("value", [{1: 2}, {"a": math.nan}, {"a": {3}}, {"a": b""}, {"a": Path()}])
def test_values_that_are_not_plain_json_are_not_written(value):
    with pytest.raises(InternalError):
        dump_json(value)


NESTED = '{"rules": [\n  {"a": 1},\n  {"b": [10,\n 20]}\n], "z": {}}'


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ((), "1:1"),
        (("rules",), "1:2"),
        (("rules", 0), "2:3"),
        (("rules", 0, "a"), "2:4"),
        (("rules", 1, "b", 1), "4:2"),
        (("z",), "5:4"),
        (("rules", 1, "missing"), "3:3"),
        (("rules", 1, "b", "list[int]"), "3:4"),
        (("nothing",), "1:1"),
    ],
)
def test_places_of_accepted_values(path, place):
    assert position_of(NESTED, path) == place


def test_places_of_several_values_are_those_of_each():
    paths = [(), ("rules", 1, "b", 1), ("rules", 1, "missing"), ("nothing",), ("z",), ("z",)]

    assert positions_of(NESTED, paths) == [position_of(NESTED, path) for path in paths]
    assert positions_of(NESTED, []) == []


# Files


def test_load_json_reads_a_file(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": "é"}', encoding="utf-8")
    assert load_json(path) == {"a": "é"}


def test_load_json_names_the_file(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{\n"a": NaN}')
    with pytest.raises(InvalidModel, match=rf"{path}:2:6"):
        load_json(path)


def test_bom_in_a_file_is_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    with pytest.raises(InvalidModel, match=":1:1`: starts with a byte order mark"):
        load_json(path)


@pytest.mark.parametrize(
    "data", [b'{"a":\n "\xff"}', b'{"a":\n "\xc0\x80"}', b'{"a":\n "\xed\xa0\x80"}']
)
def test_bad_utf8_is_refused_with_its_place(tmp_path, data):
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(InvalidModel, match=r":2:3`: byte 0x"):
        load_json(path)


def test_size_limit_is_exact(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"x" * 100)
    assert read_bytes(path, 100) == b"x" * 100
    with pytest.raises(InvalidModel, match="100 bytes, expected at most 99"):
        read_bytes(path, 99)


def test_sparse_giant_is_refused_without_reading_it(tmp_path):
    path = tmp_path / "a.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InvalidModel, match="1099511627776 bytes"):
        load_json(path)


def test_file_without_a_size_is_limited_while_it_is_read():
    with pytest.raises(InvalidModel, match="expected at most 10"):
        read_bytes("/proc/self/maps", 10)


def test_digest(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_file(path) == digest


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def make_strange(folder: Path, kind: str) -> Path:
    outside = folder / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b'{"secret": 1}')
    path = folder / "in" / "x"
    path.parent.mkdir()
    match kind:
        case "missing":
            pass
        case "folder":
            path.mkdir()
        case "symbolic link":
            path.symlink_to(outside / "secret")
        case "dangling link":
            path.symlink_to(outside / "nothing")
        case "hard link":
            path.hardlink_to(outside / "secret")
        case "pipe":
            os.mkfifo(path)
        case "device":
            path = Path("/dev/zero")
        case "socket":
            server = socket.socket(socket.AF_UNIX)
            server.bind(str(path))
            server.close()
        case "NUL":
            path = Path(f"{path}\x00.json")
        case "below a file":
            path.write_bytes(b"")
            path /= "y"
        case "long name":
            path = path.parent / ("y" * 5000)
        case "surrogate":
            path = path.parent / "\ud800"
    return path


STRANGE = [
    "missing", "folder", "symbolic link", "dangling link", "hard link", "pipe", "device", "socket",
    "NUL", "below a file", "long name", "surrogate",
]  # fmt: skip
READERS = {
    "open_regular": lambda path: open_regular(path, error=InvalidPlan),
    "read_bytes": lambda path: read_bytes(path, 100, error=InvalidPlan),
    "read_text": lambda path: read_text(path, error=InvalidPlan),
    "load_json": lambda path: load_json(path, error=InvalidPlan),
    "sha256_file": lambda path: sha256_file(path, error=InvalidPlan),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", STRANGE)
def test_only_plain_files_are_read(tmp_path, kind, reader):
    before = open_files()
    with pytest.raises(InvalidPlan):
        READERS[reader](make_strange(tmp_path, kind))
    assert open_files() == before


def test_hard_links_are_allowed_where_asked(tmp_path):
    path = make_strange(tmp_path, "hard link")
    assert load_json(path, allow_hard_links=True) == {"secret": 1}


def test_a_file_that_may_not_be_read_is_a_storage_error(tmp_path, monkeypatch):
    def refuse(*_args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.os, "open", refuse)
    with pytest.raises(StorageError, match="Permission denied"):
        open_regular(tmp_path / "a")


def test_a_fault_while_reading_is_a_storage_error(tmp_path, monkeypatch):
    def fail(*_args):
        raise OSError(5, "Input/output error")

    (tmp_path / "a").write_bytes(b"abc")
    monkeypatch.setattr(files, "_read_up_to", fail)
    monkeypatch.setattr(files, "_digest", fail)
    for read in (lambda: read_bytes(tmp_path / "a", 10), lambda: sha256_file(tmp_path / "a")):
        with pytest.raises(StorageError, match="Input/output error"):
            read()


# Paths

BAD_NAMES = [
    "", ".", "..", "/", "/etc/passwd", "../x", "a/../../x", "a/..", "a/./b", "a//b", "a/", "./a",
    "C:\\x", "C:/x", "\\\\host\\share", "\\x", "~", "~root/x", "a\x00b", "a\nb", "a b", "-rf",
    ".hidden", "a.", "a*", "a?", "a:b", "$HOME", "${HOME}", "%2e%2e/x", "é", "ﬁle", "\u212a",
    "a\u202eb", "\ud800", "..\u2215x", "con", "NUL.txt", "Com1", "a/lpt9.json", "x" * 129,
    "/".join("a" * 17), "a;b", "a|b", "file:///etc/passwd", "https://host/x",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_names_that_are_not_paths_below(tmp_path, name):
    with pytest.raises(InvalidModel, match="not an allowed relative path"):
        safe_child(tmp_path, name)


@pytest.mark.parametrize(
    "name", ["a", "unet/config.json", "model-00001-of-00002.safetensors", "_a/B-c.d.e", "x" * 128]
)
def test_allowed_names(tmp_path, name):
    assert safe_child(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize("kind", ["symbolic link", "dangling link", "pipe", "socket"])
def test_children_are_not_special(tmp_path, kind):
    make_strange(tmp_path, kind)
    with pytest.raises(InvalidPlan, match="expected a file"):
        safe_child(tmp_path / "in", "x", error=InvalidPlan)


def test_parents_are_not_links(tmp_path):
    make_strange(tmp_path, "missing")
    (tmp_path / "in" / "x").symlink_to(tmp_path / "outside")
    with pytest.raises(InvalidModel, match="is a symbolic link") as caught:
        safe_child(tmp_path / "in", "x/secret")
    assert "cp -rL" in caught.value.hint


def test_parents_are_folders(tmp_path):
    (tmp_path / "x").write_bytes(b"")
    with pytest.raises(InvalidModel, match="is a file"):
        safe_child(tmp_path, "x/y")


def test_the_root_may_be_reached_through_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert safe_child(tmp_path / "link", "a") == tmp_path / "link" / "a"


def test_children_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert safe_child("", "a").is_absolute()
    assert safe_child(".", "a") == tmp_path / "a"


def test_a_folder_that_may_not_be_searched_is_a_storage_error(tmp_path, monkeypatch):
    def refuse(_self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "lstat", refuse)
    with pytest.raises(StorageError, match="Permission denied"):
        safe_child(tmp_path, "a")


@given(st.text(max_size=40))
def test_no_text_leads_outside(text):
    root = Path("/nowhere/root")
    try:
        child = safe_child(root, text)
    except InvalidModel:
        return
    assert os.path.normpath(child) == str(child)
    assert str(child).startswith("/nowhere/root/")


def test_an_absent_file_comes_with_a_name_nearby(tmp_path):
    (tmp_path / "prompts.txt").write_text("a cat")
    with pytest.raises(InvalidModel, match="not found") as near:
        read_text(tmp_path / "prompt.txt")
    with pytest.raises(InvalidModel, match="not found") as far:
        read_text(tmp_path / "ranges")
    with pytest.raises(InvalidModel, match="not found") as nowhere:
        read_text(tmp_path / "no" / "prompts.txt")

    assert near.value.hint == f"did you mean `{tmp_path / 'prompts.txt'}`?"
    assert (far.value.hint, nowhere.value.hint) == (None, None)
