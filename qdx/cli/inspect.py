"""`qdx inspect`: the components, types and sizes of a pipeline folder or a bundle."""

from __future__ import annotations

from collections import Counter
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from qdx.backends.capabilities import Builds, JoinsPackages
from qdx.cli.engines import describe_engines, engines_text
from qdx.cli.lint import show_findings
from qdx.cli.options import AsJson, Call, Variant, read_call
from qdx.cli.output import emit, plain, size, table, visible
from qdx.cli.precision_words import precision_words
from qdx.cli.site_choice import chosen_sites
from qdx.exporter.errors import UsageError

if TYPE_CHECKING:
    from qdx.bundle.precisions import Operations
    from qdx.exporter.capture.folder import Component, PipelineFolder
    from qdx.exporter.graph.ir.weights import LazyWeights

__all__ = ["command", "describe_bundle", "weighted_components"]

_MANIFEST: Final = "qdx.json"
# Only neural networks keep their configuration under this name.
_NETWORK_CONFIG: Final = "config.json"


def command(
    path: Annotated[
        Path,
        typer.Argument(metavar="MODEL|BUNDLE", help="A diffusers pipeline folder or a bundle."),
    ],
    sites: Annotated[
        bool, typer.Option("--sites", help="Trace a pipeline and list what a plan can address.")
    ] = False,
    component: Annotated[
        str | None,
        typer.Option("--component", metavar="COMPONENT", help="With --sites: of this one alone."),
    ] = None,
    role: Annotated[
        str | None,
        typer.Option("--role", metavar="ROLE", help="With --sites: of this role, or of `attn.*`."),
    ] = None,
    lint: Annotated[
        bool,
        typer.Option(
            "--lint", help="What a bundle for a target such as `tensorrt` breaks of its rules."
        ),
    ] = False,
    call: Call = None,
    variant: Variant = None,
    as_json: AsJson = False,
) -> None:
    """Show components, types and sizes."""
    if lint:
        if sites:
            raise UsageError(
                "--sites and --lint: one is of a pipeline, one of a bundle", hint="give one"
            )
        show_findings(path, as_json=as_json)
        return
    given = {"--component": component, "--role": role}
    if not sites and any(given.values()):
        name = next(name for name, value in given.items() if value)
        raise UsageError(f"{name} is given without --sites", hint="add --sites, which lists them")
    if sites:
        from qdx.cli.early import check_model

        check_model(path)
        data = _describe_sites(path, read_call(call) or {}, variant)
        data["graphs"] = chosen_sites(data["graphs"], component, role)
        emit(data, as_json=as_json, text=_sites_text(data))
        return
    if (path / _MANIFEST).exists():
        from qdx.bundle import read_bundle

        data = describe_bundle(read_bundle(path))
        backend = _backend(data["runtime"])
        if isinstance(backend, Builds):
            folders = [folder for one in data["components"] for folder in one["folders"]]
            data["engines"] = describe_engines(backend, path, folders)
            data["engines_anywhere"] = backend.builds_anywhere
        emit(data, as_json=as_json, text=_bundle_text(data))
        return
    from qdx.exporter.capture.folder import read_pipeline_folder

    data = _describe_model(read_pipeline_folder(path, variant=variant))
    emit(data, as_json=as_json, text=_model_text(data))


def _describe_sites(path: Path, call: dict[str, Any], variant: str | None) -> dict[str, Any]:
    """The sites of every graph that the pipeline call needs, each with its share of the graph's work."""
    from qdx.exporter.graph.analysis.sites import sites
    from qdx.source.pipeline import trace_pipeline

    traced = trace_pipeline(path, call, variant=variant)
    graphs = []
    for where, record in traced.chosen.items():
        found = sites(traced.graph(where))
        total = sum(site.macs for site in found)
        entries = [
            {
                **site.to_json(),
                "size_bytes": _stored_bytes(traced.weights[record.component], site.weight),
                "share": site.macs / total if total else 0.0,
            }
            for site in found
        ]
        graphs.append({"graph": where, "macs": total, "sites": entries})
    return {
        "kind": "sites",
        "pipeline_class": traced.folder.pipeline_class,
        "graphs": graphs,
    }


def _stored_bytes(weights: LazyWeights, name: str | None) -> int:
    """Bytes of a site's weight in the pipeline's dtype; 0 without a weight."""
    if name is None:
        return 0
    weight = weights[name]
    return prod(weight.shape) * weight.dtype.itemsize


def _sites_text(data: dict[str, Any]) -> str:
    columns = ("site", "op", "role", "stage", "weight", "size", "MACs", "share")
    parts = [visible(data["pipeline_class"])]
    for graph in data["graphs"]:
        rows = [
            (
                site["key"],
                site["op"],
                site["role"],
                site["stage"] or None,
                "x".join(map(str, site["weight_shape"])) or None,
                size(site["size_bytes"]) if site["weight"] else None,
                site["macs"],
                f"{site['share']:.1%}",
            )
            for site in graph["sites"]
        ]
        parts.append(f"{visible(graph['graph'])}: {graph['macs']:,} MACs\n\n{table(columns, rows)}")
    return "\n\n".join(parts)


def weighted_components(folder: PipelineFolder) -> list[str]:
    """Returns the names of the components that are neural networks, in the order of the index."""
    found = folder.components.values()
    return [component.name for component in found if (component.path / _NETWORK_CONFIG).exists()]


def describe_bundle(bundle: Any) -> dict[str, Any]:
    """Returns what a bundle holds, from its manifest: plan, target, and each component's files."""
    from qdx.bundle.precisions import operations_of
    from qdx.exporter.plan.schema.settings import Options

    manifest = plain(bundle.manifest)
    floats = {row["component"]: row for row in manifest["resolution"]}
    backend = _backend(manifest["target"]["runtime"])
    components = []
    for name, component in manifest["components"].items():
        methods = component["methods"].values()
        folders = [folder for method in methods for folder in _folders(bundle, method, backend)]
        places = tuple(f"{place}/" for place in (*folders, *(m["folder"] for m in methods)))
        of_it = [file for file in manifest["files"] if file["path"].startswith(places)]
        components.append(
            {
                "component": name,
                "class": component["class"],
                "folders": folders,
                "floats": floats[name]["becomes"],
                "operations": plain(operations := operations_of(bundle.manifest.resolved, name)),
                "precision": _precision(name, operations, manifest["plan"], floats[name]),
                "size_bytes": sum(file["size_bytes"] for file in of_it),
            }
        )
    return {
        "kind": "bundle",
        "pipeline_class": manifest["source"]["pipeline_class"],
        "target": manifest["target"]["name"],
        "runtime": manifest["target"]["runtime"],
        "plan": manifest["plan"].get("name"),
        "options": list(Options.model_validate(manifest["plan"].get("options", {})).changed),
        "shapes": manifest["shapes"],
        "layout": manifest["layout"],
        "components": components,
        "size_bytes": sum(file["size_bytes"] for file in manifest["files"]),
        "versions": manifest["versions"],
    }


def _precision(
    component: str, operations: Operations, plan: dict[str, Any], floats: dict[str, str]
) -> str:
    """A component's precisions in words; what another quantizer makes of it is in its artifact alone."""
    from qdx.exporter.plan.sentences import afterwards

    words = precision_words(operations, floats["becomes"], floats["computes"])
    return ", ".join(filter(None, (words, afterwards(plan, component))))


def _folders(bundle: Any, method: dict[str, Any], backend: object) -> list[str]:
    """Where a method's artifact lies: one folder, or the packages that an application runs one after the other."""
    if method["artifact"] is None:
        return [method["folder"]]
    artifact = bundle.path / method["artifact"]
    packages = backend.packages_of(artifact) if isinstance(backend, JoinsPackages) else (artifact,)
    return [package.relative_to(bundle.path).as_posix() for package in packages]


def _backend(runtime: str) -> object:
    """The backend of a bundle; None of a runtime that is not known here, whose bundles can be listed all the same."""
    from qdx.backends.registry import find_backend, runtimes

    return find_backend(runtime) if runtime in runtimes() else None


def _bundle_text(data: dict[str, Any]) -> str:
    rows = [
        (c["component"], c["class"], " ".join(c["folders"]), size(c["size_bytes"]), c["precision"])
        for c in data["components"]
    ]
    head = (
        f"{visible(data['pipeline_class'])} for {visible(data['target'])}, "
        f"plan {visible(data['plan'] or 'without a name')}{' with ' * bool(data['options'])}{', '.join(data['options'])}, "
        f"{data['shapes']} shapes, {size(data['size_bytes'])}"
        + (f", layout {visible(data['layout'])}" if data["layout"] else "")
    )
    parts = [head, table(("component", "class", "folders", "size", "precision"), rows)]
    if "engines" in data:
        parts.append(engines_text(data["engines"], anywhere=data["engines_anywhere"]))
    return "\n\n".join(parts)


def _describe_model(folder: PipelineFolder) -> dict[str, Any]:
    """The pipeline folder as data; weights are counted from the headers of their files."""
    networks = set(weighted_components(folder))
    components = []
    for name, component in folder.components.items():
        entry: dict[str, Any] = {
            "component": name,
            "library": component.library,
            "class": component.class_name,
        }
        if name in networks:
            entry |= _weights(component)
        components.append(entry)
    return {
        "kind": "model",
        "pipeline_class": folder.pipeline_class,
        "components": components,
        "absent": list(folder.absent),
    }


def _weights(component: Component) -> dict[str, Any]:
    """Number, types and bytes of a network's weights."""
    from qdx.exporter.capture.component_weights import open_weights

    tensors = open_weights(component).values()
    counts: Counter[str] = Counter()
    parameters = 0
    for tensor in tensors:
        counts[tensor.dtype] += tensor.size_bytes
        product = 1
        for length in tensor.shape:
            product *= length
        parameters += product
    return {
        "parameters": parameters,
        "dtypes": [dtype for dtype, _ in counts.most_common()],
        "size_bytes": sum(counts.values()),
    }


def _model_text(data: dict[str, Any]) -> str:
    rows = [
        (
            c["component"],
            f"{c['library']}.{c['class']}",
            c.get("parameters"),
            " ".join(c.get("dtypes", ["-"])),
            size(c["size_bytes"]) if "size_bytes" in c else None,
        )
        for c in data["components"]
    ]
    columns = ("component", "class", "parameters", "weights", "size")
    absent = f"\n\nabsent: {visible(', '.join(data['absent']))}" if data["absent"] else ""
    return f"{visible(data['pipeline_class'])}\n\n{table(columns, rows)}{absent}"
