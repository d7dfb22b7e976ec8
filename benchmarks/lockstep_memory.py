"""What the comparison quantizer by quantizer costs: seconds, and peak anonymous memory, as the pictures grow.

    python -m benchmarks.lockstep_memory --runtime openvino --latents 32 64 --work build/lockstep
    python -m benchmarks.lockstep_memory --runtime onnxruntime --latents 32 --limits-mib 64 256 0 --work build/lockstep

The pipeline is made on the spot: Stable Diffusion's topology with about 80 million random weights, or with `--model sd15`
as many as Stable Diffusion 1.5 has. qdx exports its UNet with the preset w8a8 and as little calibration as there is;
artifacts that lie in the folder are used again. A limit of 0 runs the artifact as one chunk. Each row is a process of
its own, which compares one call of random inputs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import torch

import qdx
from benchmarks.pipelines import make_pipeline
from benchmarks.real_sizes import make
from qdx.backends.capabilities import OpensInLockstep
from qdx.backends.registry import get_backend
from qdx.bundle.reader import read_bundle
from qdx.bundle.target_options import checked_options
from qdx.exporter.limits import MIB
from qdx.exporter.plan.schema.load import plan_from_json, preset_text
from qdx.runtime.graph_runner import GraphRunner
from qdx.runtime.methods import TargetMethod
from qdx.verification.measure.computed import quantizer_shapes
from qdx.verification.measure.lockstep_runs import compare_in_lockstep
from qdx.verification.measure.quantized import as_method, quantized_model

if TYPE_CHECKING:
    from qdx.bundle.manifest import InputPort

_WHERE: Final = "unet.forward"
_TIMESTEP: Final = 500
_POLL_S: Final = 0.01
_WHOLE_BYTES: Final = 1 << 62
_MODELS: Final = ("80m", "sd15")


@dataclass(frozen=True)
class Cost:
    """One call in lockstep.

    Attributes:
        quantizers: At which the artifact was cut.
        seconds: Of the call, the opening of the artifact included.
        before_bytes: Anonymous memory of the process before, with the traced graph in it.
        peak_bytes: Its largest anonymous memory during the call.
        worst_db: The least SQNR.
        mean_db: Over all quantizers and outputs.
    """

    quantizers: int
    seconds: float
    before_bytes: int
    peak_bytes: int
    worst_db: float
    mean_db: float


class _Peak:
    """The largest anonymous memory of this process while it is entered."""

    def __init__(self) -> None:
        self.before_bytes = self.peak_bytes = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self.before_bytes = self.peak_bytes = _anonymous_bytes()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(_POLL_S):
            self.peak_bytes = max(self.peak_bytes, _anonymous_bytes())


def main() -> None:
    """Makes what is not there yet, measures, and prints a table."""
    arguments = _arguments()
    if arguments.child is not None:
        torch.set_num_threads(arguments.threads)
        work, bundle, limit = arguments.child
        cost = _measure(Path(work), Path(bundle), int(limit) * MIB or _WHOLE_BYTES, arguments)
        sys.stdout.write(json.dumps(asdict(cost)) + "\n")
        return
    work = arguments.work / arguments.model
    source = _pipeline(arguments.model, work / "pipeline")
    sys.stdout.write(
        "| runtime | latent | limit MiB | quantizers | seconds | before GB | peak GB | worst dB | mean dB |\n"
        "|---|---|---|---|---|---|---|---|---|\n"
    )
    for latent in arguments.latents:
        bundle = work / f"{arguments.runtime}-{latent}"
        if not bundle.exists():
            _export(source, arguments.runtime, latent, bundle)
        for limit in arguments.limits_mib:
            cost = _in_own_process(work, bundle, limit, arguments.threads)
            sys.stdout.write(
                f"| {arguments.runtime} | {latent} | {limit or 'none'} | {cost.quantizers} | {cost.seconds:.1f} | "
                f"{cost.before_bytes / 1e9:.2f} | {cost.peak_bytes / 1e9:.2f} | {cost.worst_db:.2f} | "
                f"{cost.mean_db:.4f} |\n"
            )
            sys.stdout.flush()


def _pipeline(model: str, folder: Path) -> Path:
    if model == "80m":
        return make_pipeline(folder)
    if not (folder / "model_index.json").exists():
        make(model, folder, dtype="float32")
    return folder


def _export(source: Path, runtime: str, latent: int, bundle: Path) -> None:
    """The UNet alone with the preset w8a8, calibrated on two steps."""
    plan = json.loads(preset_text("w8a8"))
    plan["calibration"] |= {"samples": 1, "steps": 2}
    path = bundle.with_suffix(".plan.json")
    path.write_text(json.dumps(plan, indent=2) + "\n")
    vae = json.loads((source / "vae" / "config.json").read_text())
    side = latent * 2 ** (len(vae["block_out_channels"]) - 1)
    call = {"prompt": "a red circle", "height": side, "width": side}
    qdx.export(source, target=runtime, plan=path, output=bundle, call=call, components=["unet"])


def _in_own_process(work: Path, bundle: Path, limit_mib: int, threads: int) -> Cost:
    command = [sys.executable, "-m", "benchmarks.lockstep_memory", "--threads", str(threads),
               "--child", str(work), str(bundle), str(limit_mib)]  # fmt: skip
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603  # our own command
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def _measure(work: Path, folder: Path, limit_bytes: int, arguments: argparse.Namespace) -> Cost:
    bundle = read_bundle(folder)
    manifest = bundle.manifest
    plan = plan_from_json(manifest.plan, source=folder.name)
    model = quantized_model(bundle, plan, work / "pipeline")
    graph = model.quantized[_WHERE]
    entry = manifest.components["unet"].methods["forward"]
    method = TargetMethod(_WHERE, entry.inputs, entry.outputs, entry.constants, GraphRunner(graph))
    call = _call(entry.inputs)
    inputs = as_method(method, graph).adapted(call)
    arrays = {name: tensor.numpy() for name, tensor in method.adapted(call).items()}
    backend = get_backend(manifest.target.runtime)
    assert isinstance(backend, OpensInLockstep)
    start = time.monotonic()
    with _Peak() as peak:
        artifact = backend.open_lockstep(
            bundle.path / entry.opened,
            checked_options(manifest),
            quantizer_shapes(graph),
            threads=arguments.threads,
        )
        names = {port.field: port.name for port in entry.outputs}
        found = compare_in_lockstep(
            graph, inputs, artifact, arrays, names, limit_bytes=limit_bytes
        ).sqnr_db
    return Cost(
        len(artifact.quantizers),
        time.monotonic() - start,
        peak.before_bytes,
        peak.peak_bytes,
        min(found.values()),
        sum(found.values()) / len(found),
    )


def _call(ports: Sequence[InputPort]) -> dict[str, torch.Tensor]:
    """Random inputs at the sizes of the export's call, in the middle of the schedule."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for port in ports:
        sizes = [size for size in port.shape if isinstance(size, int)]
        found[port.argument] = torch.randn(sizes, generator=generator)
    found["timestep"] = torch.tensor(_TIMESTEP)
    return found


def _anonymous_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("/proc/self/status: has no RssAnon, expected Linux")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", choices=_MODELS, default=_MODELS[0])
    parser.add_argument("--runtime", choices=("openvino", "onnxruntime"), default="openvino")
    parser.add_argument(
        "--latents", type=int, nargs="+", default=[32, 64], help="sides of the latent"
    )
    parser.add_argument(
        "--limits-mib", type=int, nargs="+", default=[256, 0], help="of a chunk; 0 for none"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("build/lockstep"), help="where artifacts are kept"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
