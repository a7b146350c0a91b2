"""A package by CoreML itself, where there is macOS: each set of compute units in a process of its own, with a limit
of time, for what crashes there cannot be caught.

    python -m jtts_export.validate.predict PACKAGE UNITS CALLS.npz OUTPUTS.npz
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .recorder import Call

UNITS = ("CPU_ONLY", "CPU_AND_GPU", "CPU_AND_NE", "ALL")
LIMIT_S = 300
SEPARATOR = "/"  # between call, kind and name in an .npz


def is_possible() -> bool:
    """Whether CoreML is here."""
    return sys.platform == "darwin"


def predict(package: Path, units: str, calls: Sequence[Call], limit_s: float = LIMIT_S) -> dict[str, Any]:
    """`load_s`, `seconds` and `outputs` of each call, each from its own state; or `error`, if it came to nothing."""
    with tempfile.TemporaryDirectory() as folder:
        fed, made = Path(folder) / "calls.npz", Path(folder) / "outputs.npz"
        np.savez(fed, **packed(calls))  # type: ignore[arg-type]
        command = [sys.executable, "-m", "jtts_export.validate.predict", str(package), units, str(fed), str(made)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
        except subprocess.TimeoutExpired:
            return {"error": f"took more than {limit_s:g} s"}
        if done.returncode:
            said = done.stderr.strip().splitlines()
            return {"error": said[-1] if said else f"ended with {done.returncode}"}
        with np.load(made) as arrays:
            outputs = [dict[str, np.ndarray]() for _ in calls]
            for key in arrays.files:
                number, _, name = key.partition(SEPARATOR)
                outputs[int(number)][name] = arrays[key]
        return {**json.loads(done.stdout), "outputs": outputs}


def packed(calls: Sequence[Call]) -> dict[str, np.ndarray]:
    """Calls as arrays of one file."""
    arrays: dict[str, np.ndarray] = {}
    for number, call in enumerate(calls):
        arrays[f"{number}{SEPARATOR}function"] = np.array(call.function)
        for kind, values in (("input", call.inputs), ("state", call.before)):
            arrays |= {SEPARATOR.join((str(number), kind, name)): value for name, value in values.items()}
    return arrays


def unpacked(arrays: Mapping[str, np.ndarray]) -> list[Call]:
    """What packed() made, without outputs."""
    count = 1 + max(int(key.partition(SEPARATOR)[0]) for key in arrays)
    calls = []
    for number in range(count):
        mine = {key.partition(SEPARATOR)[2]: value for key, value in arrays.items() if key.startswith(f"{number}/")}
        kinds: dict[str, dict[str, np.ndarray]] = {"input": {}, "state": {}}
        for key, value in mine.items():
            kind, _, name = key.partition(SEPARATOR)
            if kind in kinds:
                kinds[kind][name] = value
        calls.append(Call(str(mine["function"]), kinds["input"], kinds["state"], {}, {}))
    return calls


def main(package: str, units: str, fed: str, made: str) -> None:
    """Predict, and print times as JSON."""
    import coremltools as ct

    with np.load(fed) as arrays:
        calls = unpacked(dict(arrays))
    start = time.perf_counter()
    several = len({call.function for call in calls}) > 1
    models = {
        function: ct.models.MLModel(
            package,
            compute_units=getattr(ct.ComputeUnit, units),
            function_name=function if several else None,
        )
        for function in dict.fromkeys(call.function for call in calls)
    }
    load_s, seconds = time.perf_counter() - start, []
    outputs: dict[str, np.ndarray] = {}
    for number, call in enumerate(calls):
        model, state = models[call.function], None
        if call.before:
            state = model.make_state()
            for name, value in call.before.items():
                state.write_state(name, value)
        start = time.perf_counter()
        predicted = model.predict(dict(call.inputs), state)
        seconds.append(time.perf_counter() - start)
        outputs |= {f"{number}{SEPARATOR}{name}": np.asarray(value) for name, value in predicted.items()}
    np.savez(made, **outputs)  # type: ignore[arg-type]
    print(json.dumps({"load_s": load_s, "seconds": seconds}))


if __name__ == "__main__":
    main(*sys.argv[1:])
