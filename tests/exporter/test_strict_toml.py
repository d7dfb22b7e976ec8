"""Strict TOML: what is refused, and a finder of places that agrees with the standard library."""

from __future__ import annotations

import time
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

import qdx.targets
from qdx.exporter.errors import InvalidModel
from qdx.exporter.limits import TARGET_LIMIT_BYTES
from qdx.exporter.strict_toml import parse_toml, toml_entries, toml_positions
from tests.support.layers import ROOT

BARE = st.text("abcXYZ019_-", min_size=1, max_size=4)
WORDS = st.text("aé. #[]{}=,\\\"'🙂", max_size=5)
SPACE = st.sampled_from(["", " ", "\t "])
LINES = st.sampled_from(["", " ", "\n", "\r\n", ' # [x] = "\n', "\n\n  # '''\n"])


def quote(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@st.composite
def keys(draw):
    """A key as it is written, and its name."""
    if draw(st.booleans()):
        name = draw(BARE)
        return name, name
    name = draw(WORDS)
    return (f"'{name}'", name) if "'" not in name and draw(st.booleans()) else (quote(name), name)


PLAIN = ["1", "-1_000", "true", "1.5e3", "1979-05-27 07:32:00", "0x1F", "''", "'[a]#\"'"]
LONG = ["'''a'b''''", "'''\n[x]\n'''", '"""\n# no\n"" \\""" """"', '""""""']


def scalars():
    """A value without others in it, as it is written."""
    return st.one_of(st.sampled_from([*PLAIN, *LONG]), WORDS.map(quote))


@st.composite
def values(draw, depth=2):
    """A value as it is written."""
    kind = draw(st.sampled_from(["scalar", "list", "table"])) if depth else "scalar"
    if kind == "list":
        items = draw(st.lists(values(depth - 1), max_size=3))
        gap = draw(LINES)
        comma = "," if items and draw(st.booleans()) else ""
        return "[" + gap + f"{gap},{gap}".join(items) + comma + gap + "]"
    if kind == "table":
        pairs = draw(st.lists(st.tuples(keys(), values(depth - 1)), max_size=3))
        return "{" + ", ".join(f"{key} = {value}" for (key, _), value in pairs) + " }"
    return draw(scalars())


@st.composite
def documents(draw):
    lines = []
    for _ in range(draw(st.integers(0, 7))):
        parts = draw(st.lists(keys(), min_size=1, max_size=3))
        gap = draw(SPACE)
        name = f"{gap}.{gap}".join(written for written, _ in parts)
        kind = draw(st.sampled_from(["pair", "pair", "table", "list"]))
        if kind == "pair":
            lines.append(f"{gap}{name}{gap}={gap}{draw(values())}{gap}")
        else:
            lines.append(f"[{name}{gap}]" if kind == "table" else f"[[{gap}{name}]]")
        lines[-1] += draw(st.sampled_from(["", "  # why = [", "\n", "\n# {"]))
    return draw(st.sampled_from(["\n", "\r\n"])).join(lines)


def paths(value, path=()):
    """Every path of a value, and what is there."""
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in inside:
        yield (*path, key), item
        if isinstance(item, dict | list):
            yield from paths(item, (*path, key))


def offset(text, place):
    line, column = map(int, place.split(":"))
    return sum(len(one) + 1 for one in text.split("\n")[: line - 1]) + column - 1


@given(documents())
def test_every_key_is_found_where_the_standard_library_has_it(text):
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # a key given twice, or a header within a value
    expected = dict(paths(data))
    entries = list(toml_entries(text))

    # Tables on the way of a header or a dotted key have no entry; all else has exactly one, and nothing else has.
    assert {entry.path for entry in entries} <= set(expected)
    leaves = {path for path, item in expected.items() if not isinstance(item, dict | list)}
    assert leaves <= {entry.path for entry in entries}
    every = toml_positions(text, list(expected))
    assert len(every) == len(expected)
    for entry in entries:
        here = text[entry.start : entry.end]
        item, key = expected[entry.path], entry.path[-1]
        if here.startswith("["):
            assert isinstance(item, dict | list)
        elif isinstance(key, int):
            assert tomllib.loads(f"a = {here}") == {"a": item}
        else:
            alone = dict(paths(tomllib.loads(here)))
            assert item in [one for path, one in alone.items() if path == entry.path[-len(path) :]]
        if not isinstance(item, dict | list):
            assert offset(text, toml_positions(text, [entry.path])[0]) == entry.start


@pytest.mark.parametrize(
    "path", sorted((ROOT / "targets").rglob("*.toml")), ids=lambda path: path.stem
)
def test_what_comes_with_qdx_is_strict_and_has_all_its_places(path):
    text = path.read_text()
    data = parse_toml(text, source=path.name, error=InvalidModel)

    found = {entry.path for entry in toml_entries(text)}
    assert {where for where, item in paths(data) if not isinstance(item, dict | list)} <= found


PLACES = '''\
# a comment = [1]
name = "x" # [no]
a.b = { c = 1, "d.e" = ["[", 'f'] }

[table."with.dot"]
list = [ # one
  1,
  [2, 3],
]

[[rows]]
op = """
key = 1
"""
[[rows]]
op = "y"
[rows.deep]
z = 1
'''


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ((), "1:1"),
        (("name",), "2:1"),
        (("a",), "3:1"),
        (("a", "b", "c"), "3:9"),
        (("a", "b", "d.e"), "3:16"),
        (("a", "b", "d.e", 1), "3:30"),
        (("table",), "5:1"),
        (("table", "with.dot", "list", 0), "7:3"),
        (("table", "with.dot", "list", 1, 1), "8:7"),
        (("rows",), "11:1"),
        (("rows", 0), "11:1"),
        (("rows", 0, "op"), "12:1"),
        (("rows", 1), "15:1"),
        (("rows", 1, "op"), "16:1"),
        (("rows", 1, "deep", "z"), "18:1"),
        (("rows", 1, "missing"), "15:1"),
        (("missing",), "1:1"),
    ],
)
def test_places(path, place):
    assert [place] == toml_positions(PLACES, [path])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = ", "`x.toml:1:5`: Invalid value, expected TOML"),
        ("a = 1\na = 2", "`x.toml:2:6`: Cannot overwrite a value, expected TOML"),
        ("a = 1\nb = inf", "`x.toml:2:1`: `b` is inf, expected a finite number"),
        ("b = 1979-05-27", "`x.toml:1:1`: `b` is a date or a time, expected text, a number or a boolean"),
        ("b = 9007199254740992", "`x.toml:1:1`: `b` is an integer, expected less than 2**53"),
        (f"b = {'9' * 999}", "`x.toml:1:1`: 1003 characters, expected at most 1000"),
        ('b = ["\\u0000"]', "`x.toml:1:6`: `b[0]` holds a character that cannot be printed"),
        ('b = "\\u001b[2J"', "`x.toml:1:1`: `b` holds a character that cannot be printed"),
        ('b = "\\u202e"', "`x.toml:1:1`: `b` holds a character that cannot be printed"),
        ('[a]\n"\\u0007" = 1', "`x.toml:1:1`: a key is long, or holds a character that cannot be printed"),
        ("c = 1\nb = " + "[" * 9 + "]" * 9, "`x.toml:2:1`: nested deeper than 8"),
        ("b = [" + "\n[" * 5000 + "\n]" * 5001, "`x.toml:1:1`: nested deeper than 8"),
    ],
)  # fmt: skip
def test_what_is_refused(text, message):
    with pytest.raises(InvalidModel) as caught:
        parse_toml(text, source="x.toml", error=InvalidModel)

    assert message == str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        f"{'a.' * 499}a = 1\n",
        f"[{'a.' * 498}a]\nb.c = 1\n",
        "[[a]]\n",
        "a = [" + "[], " * 240 + "]\n",
        'a = """\n' + "\\" * 900,
    ],
    ids=["dotted key", "deep header", "list of tables", "lists", "open text"],
)
def test_a_file_of_the_largest_size_costs_seconds_at_most(text):
    whole = text + "".join(f"k{i}.x = 1\n" for i in range((TARGET_LIMIT_BYTES - len(text)) // 12))
    rows = text * (TARGET_LIMIT_BYTES // len(text)) if text.startswith("[[") else whole
    began = time.process_time()
    for one in (whole, rows):
        try:
            toml_positions(one, [tuple(parse_toml(one, source="x", error=InvalidModel))[:1]])
        except InvalidModel:
            continue

    assert time.process_time() - began < 10


def test_the_folder_of_targets_is_the_one_that_is_read():
    assert (ROOT / "targets").samefile(next(iter(qdx.targets.__path__)))
