"""What an app needs to know of the packages, as a page: made from what the manifest says, and from nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

UNITS = {
    "CPU_ONLY": ".cpuOnly",
    "CPU_AND_GPU": ".cpuAndGPU",
    "CPU_AND_NE": ".cpuAndNeuralEngine",
    "ALL": ".all",
}
ARRAYS = {"fp32": "Float", "fp16": "Float16", "int32": "Int32"}


def page(title: str, interface: Mapping[str, Any]) -> str:
    """Markdown: how to load and chain the stages, then each stage's functions. interface: see build.interface()."""
    lines = [
        f"# {title}: its CoreML packages in an app",
        "",
        f"For {interface['target']} and newer. Each stage is a package `<stage>.mlpackage`; Xcode compiles it, or "
        "`MLModel.compileModel(at:)` does on the device. Compute units are not stored in a package: set them as "
        "below.",
        "",
        "## How to chain the stages",
        "",
        interface["chain"].strip(),
        "",
        "## The stages",
        "",
        "| stage | what it does | computes in | compute units |",
        "| --- | --- | --- | --- |",
    ]
    stages = interface["stages"]
    lines += [
        f"| `{name}` | {stage['description']} | {stage['precision']} | `{UNITS[stage['compute_units']]}` |"
        for name, stage in stages.items()
    ]
    for name, stage in stages.items():
        lines += ["", f"### {name}", "", *_loading(name, stage), *_functions(stage)]
    if interface["lengths"]:
        lines += [
            "",
            "## Lengths",
            "",
            "Take the shortest that holds the utterance; what lies behind it is masked.",
            "",
        ]
        lines += ["| stage | function | length |", "| --- | --- | ---: |"]
        lines += [
            f"| `{stage}` | `{function}` | {length} |"
            for stage, functions in interface["lengths"].items()
            for function, length in functions.items()
        ]
    return "\n".join(lines) + "\n"


def _loading(name: str, stage: Mapping[str, Any]) -> list[str]:
    functions, has_state = list(stage["functions"]), any(f["states"] for f in stage["functions"].values())
    lines = [
        "```swift",
        "let configuration = MLModelConfiguration()",
        f"configuration.computeUnits = {UNITS[stage['compute_units']]}",
    ]
    if len(functions) > 1:
        lines.append(f'configuration.functionName = "{functions[0]}"  // one of: {", ".join(functions)}')
    lines.append(f"let {_camel(name)} = try MLModel(contentsOf: {_camel(name)}URL, configuration: configuration)")
    if has_state:
        lines.append(f"let state = {_camel(name)}.makeState()")
    return [*lines, "```", ""]


def _functions(stage: Mapping[str, Any]) -> Iterable[str]:
    for function, declared in stage["functions"].items():
        if len(stage["functions"]) > 1:
            yield from (f"Function `{function}`:", "")
        yield "| | name | shape | type | what |"
        yield "| --- | --- | --- | --- | --- |"
        for kind in ("inputs", "outputs", "states"):
            for tensor in declared[kind]:
                shape = " × ".join(f"{s[0]}…{s[1]}" if isinstance(s, list) else str(s) for s in tensor["shape"])
                yield (
                    f"| {kind.removesuffix('s')} | `{tensor['name']}` | {shape} | {ARRAYS[tensor['dtype']]} "
                    f"| {tensor['description']} |"
                )
        yield ""


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
