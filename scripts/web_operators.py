"""Measures which operators onnxruntime-web has, and writes jtts_export/profiles/web_operators.json.

    python scripts/web_operators.py [--keep FOLDER]

Every case of web_operator_cases.py runs in onnxruntime-web's wasm backend, on one thread, below Node.js; an operator
counts where numbers come out right. npm installs the versions below from the registry it is set up for.
"""

from __future__ import annotations

import argparse
import base64
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from web_operator_cases import FORMS, MICROSOFT, OPSET, Case, microsoft, standard

# Version -> whose it is. Two clients, and what npm installs today.
RUNTIMES = {
    "1.22.0-dev.20250409-89f8206ba4": "transformers.js 3.8.1, kokoro-js 1.2.1",
    "1.30.0": "npm's latest in November 2026",
    "1.31.0-dev.20260914-8d85527a0": "transformers.js 4.3.1",
}
OPSETS = range(OPSET, 27)
IR_VERSIONS = range(8, 14)
HERE = Path(__file__).resolve().parent
TABLE = HERE.parent / "jtts_export/profiles/web_operators.json"

# Of the largest magnitude expected. Products in integers round activations, in blocks that differ from machine to
# machine; all else differs by the order of sums, or by the rounding of half precision.
RTOL = {"MatMulNBits": 2e-2, "DynamicQuantizeMatMul": 2e-2, "GroupQueryAttention": 1e-2}
RTOL_ELSE, RTOL_HALF = 1e-3, 1e-2


class Web:
    """One version of onnxruntime-web. package: its name among what npm installed in a folder; work: for scratch."""

    def __init__(self, folder: Path, package: str, work: Path) -> None:
        self.folder, self.package, self.work = folder, package, work

    def right(self, cases: Sequence[Case]) -> list[bool]:
        """Whether each case gives the numbers expected."""
        lines, answers = self.work / "cases.jsonl", self.work / "answers.jsonl"
        lines.write_text("\n".join(json.dumps(_packed(case)) for case in cases) + "\n")
        answers.write_text("")
        found: dict[int, dict[str, Any]] = {}
        while len(found) < len(cases):
            number = max(found, default=-1) + 1
            command = ["node", str(HERE / "web_operators.mjs"), self.package, lines, answers, str(number)]
            done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
            rows = [json.loads(line) for line in answers.read_text().splitlines()]
            found = {row["number"]: row for row in rows}
            if done.returncode and number not in found:  # it died without a word
                found[number] = {"number": number, "error": done.stderr[-300:]}
                with answers.open("a") as file:
                    file.write(json.dumps(found[number]) + "\n")
        return [_same(case, found[i].get("outputs")) for i, case in enumerate(cases)]


def _packed(case: Case) -> dict[str, Any]:
    return {
        "model": base64.b64encode(case.model.SerializeToString()).decode(),
        "inputs": {
            name: {"type": a.dtype.name, "dims": a.shape, "data": base64.b64encode(a.tobytes()).decode()}
            for name, a in case.inputs.items()
        },
        "outputs": list(case.outputs),
    }


def _same(case: Case, made: Sequence[Mapping[str, Any]] | None) -> bool:
    if not made:
        return False
    for wanted, got in zip(case.outputs.values(), made, strict=True):
        dtype = np.dtype(got["type"])
        values = np.frombuffer(base64.b64decode(got["data"]), dtype)
        if list(got["dims"]) != list(wanted.shape) or dtype != wanted.dtype:
            return False
        values = values.reshape(wanted.shape)
        if dtype.kind == "f":
            half = dtype == np.float16 or any(a.dtype == np.float16 for a in case.inputs.values())
            finite = wanted[np.isfinite(wanted)]
            reach = float(np.abs(finite.astype(np.float64)).max(initial=1e-3))
            rtol = RTOL.get(case.node.op_type, RTOL_HALF if half else RTOL_ELSE)
            if not np.allclose(values.astype(np.float64), wanted.astype(np.float64), 0, rtol * reach, equal_nan=True):
                return False
        elif dtype == np.int8 and case.node.op_type == "GroupQueryAttention":
            if np.abs(values.astype(int) - wanted.astype(int)).max(initial=0) > 1:  # a half, rounded either way
                return False
        elif not np.array_equal(values, wanted):
            return False
    return True


def measure(web: Web) -> dict[str, Any]:
    """What one version has: opsets and IR versions it loads, and operators with what is known of each."""
    plain = standard()
    identity = next(case for case in plain if case.node.op_type == "Identity")
    opsets = _loaded(OPSETS, web.right([identity.stamped(opset) for opset in OPSETS]))
    ir_versions = _loaded(IR_VERSIONS, web.right([_of_ir(identity, version) for version in IR_VERSIONS]))
    operators: dict[str, dict[str, Any]] = {}
    by_op = defaultdict(list)
    for case in plain:
        by_op[case.node.op_type].append(case)
    tried = [(case, opset) for case in plain for opset in opsets]
    right = dict(zip(((id(c), o) for c, o in tried), web.right([c.stamped(o) for c, o in tried]), strict=True))
    for op, cases in sorted(by_op.items()):
        has = [opset for opset in opsets if any(right[id(case), opset] for case in cases)]
        if has:
            good = sum(any(right[id(case), opset] for opset in opsets) for case in cases)
            operators[op] = {"opsets": has, "right": f"{good}/{len(cases)}"}
    return {"opsets": opsets, "ir_versions": ir_versions, "operators": {**operators, **measure_microsoft(web)}}


def measure_microsoft(web: Web) -> dict[str, Any]:
    """The operators of onnxruntime's own domain."""
    by_op = defaultdict(list)
    cases = [case for case in microsoft() if case.outputs]
    for case, right in zip(cases, web.right(cases), strict=True):
        by_op[case.node.op_type].append((case, right))
    operators = {}
    for op, judged in sorted(by_op.items()):
        good = [case for case, right in judged if right]
        if good:
            forms = {"attributes": FORMS[op], "forms": [case.form for case in good]} if op in FORMS else {}
            operators[f"{MICROSOFT}.{op}"] = {"right": f"{len(good)}/{len(judged)}", **forms}
    return operators


def _loaded(numbers: range, right: Sequence[bool]) -> list[int]:
    return [number for number, good in zip(numbers, right, strict=True) if good]


def _of_ir(case: Case, version: int) -> Case:
    case = case.stamped(OPSET)
    case.model.ir_version = version
    return case


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--keep", type=Path, help="install here, and leave it there for the next time")
    keep = parser.parse_args().keep
    with tempfile.TemporaryDirectory() as temporary:
        work, folder = Path(temporary), Path(keep or temporary).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        packages = {f"ort-{version}": f"npm:onnxruntime-web@{version}" for version in RUNTIMES}
        (folder / "package.json").write_text(json.dumps({"private": True, "dependencies": packages}))
        install = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(install, cwd=folder, check=True, stdout=sys.stderr)
        runtimes = {v: {"client": client, **measure(Web(folder, f"ort-{v}", work))} for v, client in RUNTIMES.items()}
    expected_by = {"onnx": onnx.__version__, "onnxruntime": ort.__version__}
    TABLE.write_text(_text({"expected_by": expected_by, "runtimes": runtimes}) + "\n", encoding="utf-8")


def _text(content: Any, depth: int = 0) -> str:
    """JSON with a line for each operator."""
    if depth == 4 or not isinstance(content, dict):
        return json.dumps(content)
    inner = "  " * (depth + 1)
    rows = [f"{inner}{json.dumps(key)}: {_text(value, depth + 1)}" for key, value in content.items()]
    return "{\n" + ",\n".join(rows) + "\n" + "  " * depth + "}"


if __name__ == "__main__":
    main()
