"""Digests of exported artifacts, to see whether a change of the code changes what it writes.

    python -m benchmarks.artifact_bytes -o before.json
    python -m benchmarks.artifact_bytes -o after.json --compare before.json
    python -m benchmarks.artifact_bytes -o few.json --models shapes sd --plans float32 w8a8

Exports the samples and tiny pipelines of six families, for each runtime, with each plan, and writes the SHA-256 of every
file, or the reason of a refusal. The manifest is compared apart: it names versions and grows new fields. `--compare`
ends with status 1 where an artifact differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch

import qdx
from qdx.exporter.errors import TargetRefusal
from tests.support.tiny import FAMILIES, build

SAMPLES: Final = ("shapes", "shapes-mmdit", "digits")
TINY: Final = ("sd", "sdxl", "sd3", "flux", "pixart", "wan")
TARGETS: Final = ("onnxruntime", "openvino", "coreml", "tensorrt")
PLANS: Final = ("float32", "w8", "w8a8", "palette6")
_PROMPT: Final = "a red circle left of a blue square"
_MANIFEST: Final = "qdx.json"


def exported(
    model: Path, call: dict[str, Any], target: str, plan: str, folder: Path
) -> dict[str, str]:
    """The digest of each file of one export; the reason under `refused` where there is no bundle."""
    try:
        qdx.export(model, target=target, plan=plan, output=folder, call=dict(call))
    except TargetRefusal as error:
        return {"refused": error.message.splitlines()[0]}
    digests = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    shutil.rmtree(folder)
    return digests


def models(names: list[str], folder: Path) -> Iterator[tuple[str, Path, dict[str, Any]]]:
    """Each model's folder and its call."""
    for name in names:
        if name in SAMPLES:
            call = {} if name == "digits" else {"prompt": _PROMPT}
            yield name, Path("samples") / name, {**call, "num_inference_steps": 2}
        else:
            family = FAMILIES[name]
            yield name, build(name, folder / name), family.arguments()


def differences(before: dict[str, dict[str, str]], after: dict[str, dict[str, str]]) -> list[str]:
    """What differs, the manifest aside; an export that only one of them has is a difference too."""
    found = [f"{key}: in one alone" for key in sorted(before.keys() ^ after.keys())]
    for key in sorted(before.keys() & after.keys()):
        one, other = before[key], after[key]
        names = sorted((one.keys() | other.keys()) - {_MANIFEST})
        found += [f"{key}: {name}" for name in names if one.get(name) != other.get(name)]
    return found


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--compare", type=Path)
    parser.add_argument("--models", nargs="*", default=[*SAMPLES, *TINY])
    parser.add_argument("--targets", nargs="*", default=list(TARGETS))
    parser.add_argument("--plans", nargs="*", default=list(PLANS))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, dict[str, str]] = {}
    with TemporaryDirectory() as place:
        for name, model, call in models(chosen.models, Path(place)):
            for target in chosen.targets:
                for plan in chosen.plans:
                    bundle = Path(place) / "bundle"
                    found[f"{name} {target} {plan}"] = exported(model, call, target, plan, bundle)
            chosen.output.write_text(json.dumps(found, indent=1))
            print(f"{name}: done", file=sys.stderr)
    if chosen.compare is None:
        return 0
    differing = differences(json.loads(chosen.compare.read_text()), found)
    print(*differing, f"{len(differing)} files differ", sep="\n")
    return int(bool(differing))


if __name__ == "__main__":
    sys.exit(main())
