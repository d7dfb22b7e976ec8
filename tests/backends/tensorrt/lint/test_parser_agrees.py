"""The rules of the lint against NVIDIA's own parser: planted faults that both judge, each by itself."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import onnx_ir as ir
import pytest

from qdx.backends.tensorrt.lint import RULES, Severity
from tests.support.layers import ROOT
from tests.support.lint_cases import CASES
from tests.support.lint_parser_verdicts import DIFFERS, differs
from tests.support.tensorrt_rtx import needs_rtx

pytestmark = needs_rtx

SEVERITIES = {rule.name: rule.severity for rule in RULES}
PLANTED = [
    (rule, number) for rule, (_, rejected, *_) in CASES.items() for number in range(len(rejected))
]
_READ = """
import json, sys
from pathlib import Path
from qdx.backends.tensorrt.engine.parser_check import check_parsed
from qdx.backends.tensorrt.flavour import RTX
from qdx.exporter.errors import TargetRefusal
for line in sys.stdin:
    try:
        words = "; ".join(check_parsed(Path(line.strip()), RTX))
    except TargetRefusal as error:
        words = "; ".join(refusal.reason for refusal in error.refusals)
    print(json.dumps([Path(line.strip()).stem, words]), flush=True)
"""


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory):
    """By name of a planted model, what the parser says against it; in a process that it may end."""
    folder = tmp_path_factory.mktemp("planted")
    shutil.copy(ROOT / "pyproject.toml", folder)  # stands for a file of weights
    models = {f"{rule}-accepted": accepted for rule, (accepted, *_) in CASES.items()}
    models |= {f"{rule}-{number}": CASES[rule][1][number][0] for rule, number in PLANTED}
    for name, model in models.items():
        ir.save(model, folder / f"{name}.onnx")
    lines = "".join(f"{folder / name}.onnx\n" for name in models)
    done = subprocess.run(
        [sys.executable, "-c", _READ], input=lines, capture_output=True, text=True, check=True
    )
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert len(found) == len(models)
    return dict(found)


@pytest.mark.parametrize("rule", CASES)
def test_the_parser_reads_what_keeps_a_rule(rule, verdicts):
    assert verdicts[f"{rule}-accepted"] == ""


@pytest.mark.parametrize(("rule", "number"), PLANTED)
def test_the_parser_refuses_what_breaks_an_error_s_rule_or_the_table_says_why_not(
    rule, number, verdicts
):
    is_error = SEVERITIES[rule] is Severity.ERROR
    refused = bool(verdicts[f"{rule}-{number}"])

    assert refused == (is_error != differs(rule, number)), verdicts[f"{rule}-{number}"]


def test_the_table_names_planted_models_alone():
    names = {name for rule, number in PLANTED for name in (rule, f"{rule}-{number}")}

    assert set(DIFFERS) - names == set()
    assert all(DIFFERS.values())


@pytest.mark.parametrize(
    ("planted", "words"),
    [
        ("zero-point-not-zero-0", "Non-zero zero point is not supported"),
        ("scale-not-positive-0", "must all be positive"),
        ("mixed-types-0", "must have same input types"),
        ("block-shape-2", "must divide into whole blocks"),
        ("operator-version-0", "UNSUPPORTED_NODE"),
    ],
)
def test_it_says_why_in_its_own_words_in_one_line(planted, words, verdicts):
    assert words in verdicts[planted]
    assert "\n" not in verdicts[planted]
