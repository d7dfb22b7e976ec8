"""Two exports from different surroundings are equal byte by byte, and tell nothing of where they were made."""

from __future__ import annotations

import pytest

from tests.support import tiny
from tests.support.adversity import edit
from tests.support.same_bytes import check_no_trace, export

AUTHOR = "/" + "home/author"  # no folder of a machine stands in this tree


@pytest.mark.slow  # by default, quantized exports are compared in the same way
@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_same_bytes(smallest, tmp_path, target):
    call = ("--call", '{"num_inference_steps": 1}')
    one = export(smallest, tmp_path / "a" / "bundle", target, *call,
                 HOME=str(tmp_path), PYTHONHASHSEED="1", TZ="Asia/Tokyo", OMP_NUM_THREADS="1")  # fmt: skip
    other = export(smallest, tmp_path / "deep" / "er" / "x", target, *call,
                   HOME="/", PYTHONHASHSEED="2", TZ="America/Lima", OMP_NUM_THREADS="2")  # fmt: skip

    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []
    check_no_trace(one, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_no_trace_of_the_author_either(tmp_path, target):
    model = tiny.build("sd", tmp_path / "model")
    local = {
        "name_or_path": f"{AUTHOR}/clip",
        "special_tokens_map_file": f"{AUTHOR}/.cache/x",
    }
    edit(model / "tokenizer" / "tokenizer_config.json", **local)
    edit(model / "text_encoder" / "config.json", _name_or_path=f"{AUTHOR}/clip")

    check_no_trace(export(model, tmp_path / "out" / "bundle", target), tmp_path)
