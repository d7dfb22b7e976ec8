"""Every pipeline class of the installed diffusers: exported, compared with stock diffusers in PyTorch, verified.

    python -m benchmarks.pipeline_table -o results.jsonl [--shard 1/4] [--only NAME ...] [--target T] [--plan P]
    python -m benchmarks.pipeline_table --results results.jsonl --page docs/pipeline-table.md

Each class is a folder of small components with random weights (`tests/support/every`), worked on in a process of its
own. Run by its path, the script takes the qdx of the Python that runs it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Final

os.environ.update(HF_HUB_OFFLINE="1", DIFFUSERS_VERBOSITY="error", TRANSFORMERS_VERBOSITY="error")

import torch

import qdx

# Only now: the qdx of the running Python is loaded, and the tests of this tree are found beside it.
sys.path.append(str(Path(__file__).resolve().parent.parent))

from tests.support.every import pipeline_classes
from tests.support.every.apart import LIMIT_S, measure_apart
from tests.support.every.measure import LEAST_DB, Result, warm_up

_HEAD: Final = """# Pipeline classes

What becomes of every pipeline class of diffusers {diffusers} on ONNX Runtime in `float32`: a small folder with random
weights is exported with the call that its signature asks for, opened, compared with stock diffusers in PyTorch, the same
seed in both, and verified. `works` is a PSNR of {least:.0f} dB or more, in any field of the output (the peak is the range
of PyTorch's), and a `qdx verify` whose gates hold. `refused` ends with a message and exit status 2, 3 or 4, and no bundle.

`python -m benchmarks.pipeline_table -o out/pipelines.jsonl` measures, in two hours on one core, and with `--results
out/pipelines.jsonl --page docs/pipeline-table.md` makes this page. `make test-all` runs every class of the page again, and
fails where one becomes worse than it says. Classes that the page does not name have not been measured yet.

| Works | Refused | Fails | Not tried |
|---|---|---|---|
| {works} | {refused} | {fails} | {untried} |
"""
_OTHERS: Final = """
## Other targets

PSNR of the image in dB, as `qdx verify` measures it, of classes whose every gate holds; what is not executed here is computed
by the interpreters of qdx, see [Verification](verification.md). `--target T --plan P -o FILE` measures, and `--other
'HEADING=FILE'` makes the column.

"""
_MEANINGS: Final = {
    "refused": "The number is that of the reason below.",
    "fails": "The export ended with another exit status, the artifact could not be called, or its output differs.",
    "not built": "The small folder does not run in PyTorch here: diffusers itself fails, a package is missing, the "
    "pipeline needs a method called before it, or the generator has no small component of a kind yet.",
}


def page(
    results: Iterable[Result], others: Mapping[str, Iterable[Result]] = MappingProxyType({})
) -> Iterator[str]:
    """The page, in parts; of other targets by the heading of their column."""
    import diffusers

    sorted_results = sorted(results, key=lambda one: one.pipeline)
    of: dict[str, list[Result]] = defaultdict(list)
    for one in sorted_results:
        of[one.outcome].append(one)
    yield _HEAD.format(
        diffusers=diffusers.__version__,
        least=LEAST_DB,
        works=len(of["works"]),
        refused=len(of["refused"]),
        fails=len(of["fails"]),
        untried=len(of["not built"]),
    )
    yield "\n## Works\n\n| Pipeline | dB |\n|---|---|\n"
    yield "".join(f"| {one.pipeline} | {one.psnr_db:.0f} |\n" for one in of["works"])
    for outcome, title in (("refused", "Refused"), ("fails", "Fails"), ("not built", "Not tried")):
        if not of[outcome]:
            continue
        reasons: dict[str, int] = {}
        rows = []
        for one in of[outcome]:
            number = reasons.setdefault(_reason(one), len(reasons) + 1)
            rows.append(f"| {one.pipeline} | {number} |\n")
        yield f"\n## {title}\n\n{_MEANINGS[outcome]}\n\n| Pipeline | Reason |\n|---|---|\n"
        yield "".join(rows)
        yield "\n" + "".join(f"{number}. {reason}\n" for reason, number in reasons.items())
    yield from _other_targets(others)


def _other_targets(others: Mapping[str, Iterable[Result]]) -> Iterator[str]:
    """A table with a column for each target, PSNR or outcome."""
    if not others:
        return
    found = {heading: {one.pipeline: one for one in results} for heading, results in others.items()}
    names = sorted({name for results in found.values() for name in results})
    yield _OTHERS + f"| Pipeline | {' | '.join(found)} |\n|---|{'---|' * len(found)}\n"
    for name in names:
        cells = (_cell(results.get(name)) for results in found.values())
        yield f"| {name} | {' | '.join(cells)} |\n"


def _cell(result: Result | None) -> str:
    if result is None:
        return ""
    if result.outcome == "works" and result.psnr_db is not None:
        return f"{result.psnr_db:.0f}"
    return result.outcome


def _reason(result: Result) -> str:
    """The first line of a message, safe inside Markdown, without the pipeline's own name."""
    first = (result.message.splitlines() or ["no message"])[0].replace(result.pipeline, "PIPELINE")
    return first[:300].replace("|", "/").replace("<", "(").replace(">", ")").replace("`", "'")


def read_results(path: Path) -> list[Result]:
    """Results of a file of JSON lines; of several for one class the last."""
    found = {}
    for line in filter(None, path.read_text(encoding="utf-8").splitlines()):
        one = Result(**json.loads(line))
        found[one.pipeline] = one
    return list(found.values())


def shard_of(names: list[str], shard: str) -> list[str]:
    """Every N-th name, from the I-th, for `I/N`."""
    at, of = (int(one) for one in shard.split("/"))
    return names[at - 1 :: of]


def run(options: argparse.Namespace) -> None:
    """Measures the chosen classes, one line of words and one of JSON each."""
    torch.set_num_threads(1)
    warm_up(options.target)
    with TemporaryDirectory() as place:
        for name in options.only or shard_of(list(pipeline_classes()), options.shard):
            folder = (options.keep or Path(place)) / name
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            found = measure_apart(
                name,
                folder,
                options.target,
                options.plan,
                limit_s=options.limit_s,
                shapes=options.shapes,
                as_python=options.as_python,
            )
            if options.keep is None:
                shutil.rmtree(folder)
            if options.output is not None:
                with options.output.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(found), ensure_ascii=False) + "\n")
            said = found.message[:160].replace("\n", " ")
            print(
                found.outcome,
                name,
                found.psnr_db,
                found.exit_status,
                said,
                f"{found.seconds} s",
                flush=True,
            )


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, help="JSON lines are added to it")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--shard", default="1/1", metavar="I/N")
    parser.add_argument("--target", default="onnxruntime")
    parser.add_argument("--plan", default="float32")
    parser.add_argument("--shapes", default="static", choices=["static", "dynamic"])
    parser.add_argument("--limit-s", type=float, default=LIMIT_S)
    parser.add_argument("--as-python", action="store_true", help="give the call to qdx.export")
    parser.add_argument("--keep", type=Path, help="work in this folder and keep what is made")
    parser.add_argument(
        "--results", type=Path, help="make the page of these results, and run nothing"
    )
    parser.add_argument("--page", type=Path, help="where the page is written")
    parser.add_argument(
        "--other", action="append", default=[], metavar="HEADING=FILE", help="a column of the page"
    )
    options = parser.parse_args()
    if options.results is not None:
        columns = (one.partition("=") for one in options.other)
        others = {heading: read_results(Path(file)) for heading, _, file in columns}
        words = "".join(page(read_results(options.results), others))
        options.page.write_text(words, encoding="utf-8")
    else:
        print(f"qdx of {Path(qdx.__file__).parent.parent}", file=sys.stderr)
        run(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
