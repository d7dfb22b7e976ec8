"""JSON on the command line: what a shell makes of it is refused with the line to paste instead."""

from __future__ import annotations

import shlex

import pytest

from qdx.cli.json_options import pasteable, read_call, read_setup
from qdx.exporter.errors import QdxError
from tests.support.rights import closed_neighbour

LINES = {
    "{'prompt': 'a cat'}": """give --call '{"prompt": "a cat"}'""",
    '{"prompt": "a cat",}': """give --call '{"prompt": "a cat"}'""",
    '{"prompt": "a cat", "loud": True}': """give --call '{"prompt": "a cat", "loud": true}'""",
    '\'{"prompt": "a cat"}\'': """give --call '{"prompt": "a cat"}'""",
    '{\\"prompt\\": \\"a cat\\"}': """give --call '{"prompt": "a cat"}'""",
    "a red circle": """give --call '{"prompt": "a red circle"}'""",
    '"a red circle"': """give --call '{"prompt": "a red circle"}'""",
    '["one", "two"]': """give --call '{"prompt": ["one", "two"]}'""",
    "prompt=a cat": """give --call '{"prompt": "a cat"}'""",
    "height=64": """give --call '{"height": 64}'""",
    "{'prompt': \"the cat's hat\"}": """give --call '{"prompt": "the cat'"'"'s hat"}'""",
}


@pytest.mark.parametrize(("text", "line"), LINES.items(), ids=LINES)
def test_a_slip_in_a_call_is_refused_with_the_line_to_paste(text, line):
    with pytest.raises(QdxError) as raised:
        read_call(text)

    assert raised.value.exit_code == 2
    assert raised.value.hint == line
    assert read_call(shlex.split(line)[2])


def test_where_a_shell_took_the_quotes_a_file_is_the_way_out():
    with pytest.raises(QdxError) as raised:
        read_call("{prompt: a cat}")

    assert raised.value.hint.startswith("""give --call '{"prompt": "a cat"}'\n""")
    assert "PowerShell" in raised.value.hint
    assert "--call FILE" in raised.value.hint


def test_a_file_with_a_name_nearby_is_proposed(tmp_path):
    (tmp_path / "call.json").write_text("{}")

    with pytest.raises(QdxError, match="not found, expected a file") as raised:
        read_call(str(tmp_path / "call.jsn"))

    assert raised.value.hint == f"did you mean {tmp_path / 'call.json'}?"


SETUPS = {
    "[{'enable_vae_tiling': {}}]": """give --setup '[{"enable_vae_tiling": {}}]'""",
    '{"enable_vae_tiling": {}}': """give --setup '[{"enable_vae_tiling": {}}]'""",
    "enable_vae_tiling": """give --setup '[{"enable_vae_tiling": {}}]'""",
}


@pytest.mark.parametrize(("text", "line"), SETUPS.items(), ids=SETUPS)
def test_a_slip_in_a_set_up_is_refused_with_the_line_to_paste(text, line):
    with pytest.raises(QdxError) as raised:
        read_setup(text)

    assert raised.value.hint == line


def test_places_in_a_set_up_are_those_of_its_own_text(tmp_path):
    with pytest.raises(QdxError, match="`--setup:1:3`: single quotes"):
        read_setup("[{'enable_vae_tiling': {}}]")
    file = tmp_path / "setup.json"
    file.write_text('[{"enable_vae_tiling": {}},]')
    with pytest.raises(QdxError, match=r"setup\.json:1:27`: a comma before `\]`"):
        read_setup(str(file))


def test_what_is_right_is_taken():
    assert read_call('{"prompt": "a cat"}') == {"prompt": "a cat"}
    assert read_setup('[{"enable_vae_tiling": {}}]') == [{"enable_vae_tiling": {}}]
    assert read_call(None) is None


def test_an_option_that_takes_no_json_has_no_such_line():
    assert pasteable("--plan", "{}") is None


def test_a_file_in_a_folder_that_cannot_be_looked_into_is_not_found(tmp_path, monkeypatch):
    with (
        closed_neighbour(tmp_path, monkeypatch),
        pytest.raises(QdxError, match=r"call\.json`: not found") as raised,
    ):
        read_call("closed/call.json")

    assert "JSON text goes here too" in raised.value.hint


@pytest.mark.parametrize("text", ["", " "])
def test_nothing_in_the_place_of_a_call_is_told_what_goes_there(text):
    with pytest.raises(QdxError, match="--call: is empty, expected a JSON object or a file") as bad:
        read_call(text)

    assert "for example --call '{" in bad.value.hint


def test_a_folder_in_the_place_of_a_call_is_told_what_goes_there(tmp_path):
    with pytest.raises(QdxError, match="is a folder, expected a JSON object or a file") as bad:
        read_call(str(tmp_path))

    assert "for example --call '{" in bad.value.hint


def test_an_argument_of_a_wrong_kind_is_refused_with_the_call():
    with pytest.raises(QdxError, match="`height` is -64, expected a whole number of at least 1"):
        read_call('{"prompt": "a cat", "height": -64, "width": 64}')
