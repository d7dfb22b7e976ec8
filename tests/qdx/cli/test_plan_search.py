"""`qdx plan search`: what it writes, and what it refuses before anything heavy is imported."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from qdx.analyze.plan_digest import plan_digest
from qdx.exporter.files import dump_json, sha256_file
from qdx.exporter.plan import load_plan
from qdx.search.fits import digest
from qdx.source.pipeline import trace_pipeline
from qdx.source.planned import plan_graphs
from qdx.targets import load_target
from tests.support.searching import analysis

CALL = {"num_inference_steps": 2}
FEW = ("--budget", "average_bits=8.9")


@pytest.fixture(scope="module")
def analyzed(smallest, tmp_path_factory):
    """An analysis of the smallest pipeline, made up but for its sites and digests."""
    profile, base = load_target("openvino"), load_plan("w8a8")
    source = trace_pipeline(smallest, CALL)
    sites = plan_graphs(source, base, profile).sites["unet.forward"]
    chosen = [one for one in sites if one.op in {"conv2d", "linear", "qk", "pv"}]
    whole = analysis(
        chosen,
        {"first": 50.0, "last": 200.0},
        model={
            "pipeline_class": "DDPMPipeline",
            "files": {"unet/config.json": sha256_file(smallest / "unet" / "config.json")},
        },
        target={"name": "openvino", "profile": digest(profile.model_dump(mode="json"))},
        plan_base={"name": "w8a8", "plan": plan_digest(base)},
        sampling={"call": CALL, "images": "0" * 64, "prompts": None, "samples": 1, "steps": 2, "seed": 0},
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("analysis")
    (folder / "analysis.json").write_bytes(dump_json(whole.to_json()))
    return folder


def command(model, folder, *more, target="openvino"):
    return ("plan", "search", model, "--target", target, "--analysis", folder, "--predicted", *more)


def test_a_plan_is_found_written_and_resolved_again(qdx, smallest, analyzed, tmp_path):
    out, report = tmp_path / "found.json", tmp_path / "report"
    done = qdx(*command(smallest, analyzed, *FEW, "-o", out, "--report", report, "--no-cache"))

    assert done.status == 0, done.err
    assert "this plan" in done.out
    assert "permuted" in done.out
    plan = load_plan(out)
    assert plan.name == "found"
    assert plan.found.average_bits <= 8.9
    shown = qdx("plan", "show", out, "--model", smallest, "--target", "openvino", "--call", json.dumps(CALL))  # fmt: skip
    assert shown.status == 0, shown.err
    ET.fromstring((report / "front.svg").read_text())
    assert json.loads((report / "search.json").read_text())["front"]["points"]


def test_the_same_inputs_write_the_same_bytes(qdx, smallest, analyzed, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        done = qdx(*command(smallest, analyzed, *FEW, "-o", tmp_path / name / "found.json", "--no-cache"))  # fmt: skip
        assert done.status == 0, done.err

    assert (tmp_path / "a" / "found.json").read_bytes() == (tmp_path / "b" / "found.json").read_bytes()  # fmt: skip


def test_the_result_is_data_where_asked(qdx, smallest, analyzed, tmp_path):
    done = qdx(*command(smallest, analyzed, *FEW, "-o", tmp_path / "p.json", "--json", "--no-cache"))  # fmt: skip

    data = json.loads(done.out)
    assert set(data) >= {"plan", "front", "predicted", "measured", "controls"}
    assert data["plan"] == json.loads((tmp_path / "p.json").read_text())


def test_a_budget_that_cannot_be_met_is_a_refusal_of_the_target(qdx, smallest, analyzed, tmp_path):
    done = qdx(*command(smallest, analyzed, "--budget", "average_bits=1", "-o", tmp_path / "p.json", "--no-cache"))  # fmt: skip

    assert done.status == 3
    assert "the least that can is" in done.err
    assert "unet." in done.err
    assert not (tmp_path / "p.json").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ((), "nothing is asked for"),
        (("--budget", "bytes=-1MB"), "not above zero"),
        (("--budget", "bytes=1 stone"), "unknown unit"),
        (("--budget", "energy=3"), "none that there is"),
        (("--goal", "beauty"), "none that there is"),
        ((*FEW, "--fix", "attention"), "not a role"),
        ((*FEW, "--prefer", "money"), "not a cost"),
        ((*FEW, "--timestep-groups", "0"), "expected greater than or equal to 1"),
        ((*FEW, "--timestep-groups", "11"), "keeps 10 groups of timesteps apart"),
        ((*FEW, "--timestep-groups", "3"), "leave --predicted out"),
        (("--goal", "psnr_db=25"), "nothing here makes pictures to judge"),
        (("--budget", "average_bits=nan"), "is no number"),
        (("--budget", "average_bits=4,average_bits=5"), "is given twice"),
        ((*FEW, "--weigh", "luck"), "expected steps or trajectory"),
        ((*FEW, "--report", __file__), "is not a folder"),
        ((*FEW, "--time-front"), "the front is over bytes"),
        ((*FEW, "--prefer", "latency_ms", "--time-front"), "nothing times plans here"),
        ((*FEW, "--memory", "much"), "--memory"),
    ],
)
def test_wrong_usage_is_told_at_once(qdx, smallest, analyzed, tmp_path, more, words):
    done = qdx(*command(smallest, analyzed, *more, "-o", tmp_path / "p.json"))

    assert done.status == 2
    assert words in done.err


def test_an_analysis_for_another_target_is_refused(qdx, smallest, analyzed, tmp_path):
    done = qdx(*command(smallest, analyzed, *FEW, "-o", tmp_path / "p.json", "--no-cache", target="onnxruntime"))  # fmt: skip

    assert done.status == 2
    assert "for target `openvino`" in done.err


def test_an_analysis_of_another_model_is_refused(qdx, tiny_sd, analyzed, tmp_path):
    done = qdx(*command(tiny_sd, analyzed, *FEW, "-o", tmp_path / "p.json", "--no-cache"))

    assert done.status == 2
    assert "of another model" in done.err


def test_an_analysis_upon_another_plan_is_refused(qdx, smallest, analyzed, tmp_path):
    done = qdx(*command(smallest, analyzed, *FEW, "--from", "w8", "-o", tmp_path / "p.json", "--no-cache"))  # fmt: skip

    assert done.status == 2
    assert "upon `w8a8`, and this is `w8`" in done.err


def test_nothing_is_overwritten_unless_told(qdx, smallest, analyzed, tmp_path):
    out = tmp_path / "p.json"
    out.write_text("mine")
    done = qdx(*command(smallest, analyzed, *FEW, "-o", out, "--no-cache"))

    assert (done.status, out.read_text()) == (2, "mine")
    assert qdx(*command(smallest, analyzed, *FEW, "-o", out, "--force", "--no-cache")).status == 0
    assert load_plan(out).found is not None


@pytest.mark.slow
def test_without_an_analysis_one_is_made_beside_the_plan_and_serves_again(qdx, smallest, tmp_path):
    def search(*more):
        call = ("--call", json.dumps(CALL), "--options", "int8,int4:block32", "--calls", "1")
        return qdx("plan", "search", smallest, "--target", "openvino", "--no-cache", *more, *call)

    done = search(*FEW, "-o", tmp_path / "p.json")
    assert done.status == 0, done.err
    assert "analyzing first" in done.err
    made = json.loads((tmp_path / "p-analysis" / "analysis.json").read_text())
    assert [one["label"] for one in made["options"][1:]] == ["int8 channel", "int4 block 32"]
    assert load_plan(tmp_path / "p.json").found.measured is not None

    again = search("--budget", "average_bits=9.5", "-o", tmp_path / "p.json", "--force")
    assert again.status == 2
    assert "--options is of an analysis that is made" in again.err
    again = qdx("plan", "search", smallest, "--target", "openvino", "--budget", "average_bits=9.5",
                "-o", tmp_path / "p.json", "--force", "--no-cache")  # fmt: skip
    assert again.status == 0, again.err
    assert "analyzing first" not in again.err


def test_an_analysis_that_is_named_must_be_there(qdx, smallest, tmp_path):
    done = qdx(*command(smallest, tmp_path / "none", *FEW, "-o", tmp_path / "p.json"))

    assert done.status == 2
    assert "no such folder" in done.err
    assert not list(tmp_path.iterdir())


def test_wrong_usage_imports_no_torch(tmp_path):
    code = (
        "import sys; from qdx.cli.main import run_command;"
        "status = run_command(['plan', 'search', 'm', '--target', 'openvino', '--budget', 'bytes=0',"
        " '--analysis', 'x', '-o', 'p.json']);"
        "sys.exit(10 * ('torch' in sys.modules) + status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=False, capture_output=True
    )

    assert done.returncode == 2, done.stderr
