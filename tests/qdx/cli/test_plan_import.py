"""`qdx plan import`: plans of other tools, what is told of them, and what is refused before a model is opened."""

from __future__ import annotations

import json
import time

import pytest

from tests.support.smallest import build_smallest

FP8 = {
    "quant_cfg": [
        {"quantizer_name": "*", "enable": False},
        {"quantizer_name": "*weight_quantizer", "cfg": {"num_bits": [4, 3], "axis": None}},
        {"quantizer_name": "*lm_head*", "enable": False},
    ],
    "algorithm": "max",
}
INT8 = {"quant_cfg": [FP8["quant_cfg"][0], {"quantizer_name": "*weight_quantizer", "cfg": {"num_bits": 8, "axis": 0}}]}  # fmt: skip
NVFP4 = {"quant_cfg": [FP8["quant_cfg"][0], {"quantizer_name": "*weight_quantizer", "parent_class": "nn.Linear", "cfg": {"num_bits": [2, 1], "block_sizes": {"-1": 16, "type": "dynamic", "scale_bits": [4, 3]}}}]}  # fmt: skip
AWQ = {**INT8, "algorithm": "awq_lite"}


@pytest.fixture
def write(tmp_path):
    def call(value, name="foreign.json"):
        path = tmp_path / name
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return path

    return call


def test_a_plan_is_written_and_what_became_of_the_file_told(qdx, write, tmp_path):
    done = qdx("plan", "import", write(FP8), "-o", tmp_path / "p.json")

    assert (done.status, done.err) == (0, f"wrote {tmp_path / 'p.json'}\n")
    assert done.out.splitlines()[0].split() == ["part", "what", "becomes", "of", "it"]
    assert "weights float8_e4m3fn, a scale of the tensor" in done.out
    assert qdx("plan", "check", tmp_path / "p.json").status == 0


def test_json_has_the_findings_and_the_plan(qdx, write, tmp_path):
    done = qdx("plan", "import", write(FP8), "-o", tmp_path / "p.json", "--json")
    data = json.loads(done.out)

    assert (data["tool"], data["written"]) == ("modelopt", True)
    assert {one["verdict"] for one in data["findings"]} == {"exact"}
    assert data["plan"] == json.loads((tmp_path / "p.json").read_text())


def test_with_something_refused_nothing_is_written_unless_partial(qdx, write, tmp_path):
    plan = tmp_path / "p.json"
    done = qdx("plan", "import", write(AWQ), "-o", plan)

    assert done.status == 3
    assert "awq_lite" in done.err
    assert "--partial" in done.err
    assert not plan.exists()
    again = qdx("plan", "import", write(AWQ), "-o", plan, "--partial")
    assert (again.status, qdx("plan", "check", plan).status) == (0, 0)


def test_yaml_with_the_tool_named(qdx, write, tmp_path):
    text = "quant_cfg:\n- {quantizer_name: '*', enable: false}\n- quantizer_name: '*weight_quantizer'\n  cfg: {num_bits: e4m3, axis: null}\nalgorithm: max\n"
    done = qdx("plan", "import", write(text, "f.yaml"), "--from", "modelopt", "-o", tmp_path / "p.json")  # fmt: skip

    assert done.status == 0, done.err


def test_for_a_model_and_a_target(qdx, write, tmp_path):
    model = build_smallest(tmp_path / "model")
    for name, data, status in (("nvfp4", NVFP4, 3), ("int8", INT8, 0)):
        plan = tmp_path / f"{name}.json"
        done = qdx("plan", "import", write(data), "--model", model, "--target", "onnxruntime", "-o", plan)  # fmt: skip

        assert (done.status, plan.exists()) == (status, status == 0), done.err
        assert ("there are no kernels of floats in blocks" in done.out) == bool(status)  # fmt: skip
    lines = qdx("plan", "show", tmp_path / "int8.json", "--model", model, "--target", "onnxruntime")
    assert lines.status == 0, "rules that decide nothing were left out"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"quant_cfg": ', "expected"),
        ('{"a": 1}', "does not say which tool wrote it"),
        ("a: &x 1", "an anchor"),
        ("a: !!python/object/apply:os.system [touch x]", "tags can name code"),
        ("\x80\x02", "f:1:1"),
        ("", "expected a mapping"),
    ],
)
def test_a_malformed_file_is_refused_at_once(qdx, write, tmp_path, text, words):
    start = time.process_time()
    done = qdx("plan", "import", write(text, "f"), "-o", tmp_path / "p.json", "--model", tmp_path)

    assert (done.status, done.out) == (2, "")
    assert words in done.err
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--from", "mystery"], "`mystery` is not a tool"),
        (["--target", "openvino"], "--target without --model"),
    ],
)
def test_wrong_usage(qdx, write, tmp_path, arguments, words):
    done = qdx("plan", "import", write(FP8), "-o", tmp_path / "p.json", *arguments)

    assert done.status == 2
    assert words in done.err


def test_nothing_is_overwritten(qdx, write, tmp_path):
    path = write(FP8)

    assert qdx("plan", "import", path, "-o", path).status == 2
    assert json.loads(path.read_text()) == FP8
