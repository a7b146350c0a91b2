"""Which operators of a graph a runtime lacks, told from the file alone."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from graphs import IR_VERSION, OPSET, graph, normal
from onnx import TensorProto, helper, numpy_helper

from jtts_export.exporters.onnx import save
from jtts_export.profiles import web
from jtts_export.profiles.schema import Profile, load_profile
from jtts_export.quantize.apply import quantize
from jtts_export.quantize.matmul import MICROSOFT
from jtts_export.quantize.schemes import (
    BlockMatMul,
    DynamicMatMul,
    Recipe,
    Rule,
    Scheme,
    StoredFp16,
    StoredInt,
    label,
)
from jtts_export.validate.operators import Table, is_known, missing, missing_of, table_of

REPOSITORY = Path(__file__).parents[2]
CLIENTS, SCRIPTS = REPOSITORY / "tests/clients/node", REPOSITORY / "scripts"

TABLE = Table(
    "test",
    opsets=(17, 18),
    ir_versions=(8,),
    operators={
        "Add": {"opsets": [17, 18]},
        "Mul": {"opsets": [18]},
        "If": {"opsets": [17, 18]},
        "com.microsoft.BiasGelu": {},
        "com.microsoft.MatMulNBits": {"attributes": {"bits": 4, "block_size": None}, "forms": [[4, 32], [8, 64]]},
    },
)
OLD, LATEST = next(iter(web.known())), web.latest()


def model(*nodes: onnx.NodeProto, opset: int = OPSET, **more: object) -> onnx.ModelProto:
    """A graph of these nodes, whose inputs are not looked at."""
    graph = helper.make_graph(list(nodes), "test", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=opsets, **{"ir_version": IR_VERSION, **more})


def node(op: str, name: str = "", domain: str = "", **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, ["x", "x"], ["y"], name, domain=domain, **attributes)


def lacking(folder: Path, found: onnx.ModelProto, table: Table = TABLE) -> list[str]:
    onnx.save(found, folder / "model.onnx")
    return missing(folder / "model.onnx", table)


def for_web(version: str | None = None) -> Profile:
    return Profile(
        name="w", description="", runtime="onnxruntime-web", provider="wasm", runtime_version=version, gates={}
    )


def test_what_the_runtime_has_is_not_missing(tmp_path: Path) -> None:
    made = model(node("Add"), node("Add", domain="ai.onnx"), node("BiasGelu", domain=MICROSOFT))
    assert lacking(tmp_path, made) == []


def test_an_unknown_operator_is_named_with_its_first_node_and_their_number(tmp_path: Path) -> None:
    made = model(node("Warp", "layer.0/act"), node("Warp", "layer.1/act"), node("Add"), node("Add", domain="my.own"))
    assert lacking(tmp_path, made) == ["Warp (layer.0/act and 1 more)", "my.own.Add (y)"]


def test_an_operator_of_another_domain_is_another(tmp_path: Path) -> None:
    assert lacking(tmp_path, model(node("BiasGelu", "n"))) == ["BiasGelu (n)"]


def test_an_operator_counts_in_opsets_that_have_it(tmp_path: Path) -> None:
    assert lacking(tmp_path, model(node("Mul", "n"), opset=17)) == ["Mul in opset 17 (n)"]
    assert lacking(tmp_path, model(node("Mul", "n"), opset=18)) == []


def test_a_graph_of_another_opset_or_ir_version_is_missing_as_a_whole(tmp_path: Path) -> None:
    assert lacking(tmp_path, model(node("Add"), opset=19)) == ["opset 19"]
    assert lacking(tmp_path, model(node("Add"), ir_version=10)) == ["IR version 10"]


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"bits": 4, "block_size": 32}, None),
        ({"block_size": 32, "K": 7}, None),  # 4 bits is the default
        ({"bits": 8, "block_size": 64}, None),
        ({"bits": 8, "block_size": 32}, "bits=8, block_size=32"),
        ({"bits": 2, "block_size": 64}, "bits=2, block_size=64"),
        ({"bits": 4}, "bits=4, block_size=None"),
    ],
)
def test_an_operator_that_is_there_in_some_forms_is_missing_in_others(
    tmp_path: Path, attributes: dict[str, int], said: str | None
) -> None:
    made = model(node("MatMulNBits", "n", MICROSOFT, **attributes))
    assert lacking(tmp_path, made) == ([f"com.microsoft.MatMulNBits with {said} (n)"] if said else [])


def test_branches_are_looked_into(tmp_path: Path) -> None:
    branch = model(node("Add"), node("Warp", "inner")).graph
    chosen = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    assert lacking(tmp_path, model(chosen)) == ["Warp (inner and 1 more)"]


def test_functions_are_looked_into_and_are_no_operators(tmp_path: Path) -> None:
    opsets = [helper.make_opsetid("", OPSET)]
    body = helper.make_function("my.own", "Twice", ["x"], ["y"], [node("Warp", "inner")], opsets)
    assert lacking(tmp_path, model(node("Twice", domain="my.own"), functions=[body])) == ["Warp (inner)"]


def test_weights_in_a_file_of_their_own_are_not_read(tmp_path: Path) -> None:
    """They need not even be there."""
    made = model(node("Warp", "n"))
    made.graph.initializer.append(numpy_helper.from_array(normal(0, 64, 64), "weight"))
    onnx.save(made, tmp_path / "model.onnx", save_as_external_data=True, location="model.onnx_data", size_threshold=0)
    (tmp_path / "model.onnx_data").unlink()
    assert missing(tmp_path / "model.onnx", TABLE) == ["Warp (n)"]


# --- onnxruntime-web, as measured ------------------------------------------------------------------------------


def test_every_version_that_was_measured_has_a_table() -> None:
    for version in web.known():
        table = table_of(for_web(version))
        assert table is not None
        assert table.runtime == f"onnxruntime-web {version}"
        assert set(range(17, 21)) <= set(table.opsets)  # those that graphs are exported in
        for name, has in table.operators.items():
            right, cases = map(int, has["right"].split("/"))
            assert 0 < right <= cases, name
            assert set(has.get("opsets", ())) <= set(table.opsets), name
            assert all(len(form) == len(has["attributes"]) for form in has.get("forms", ())), name


def test_without_a_version_the_latest_release_is_meant() -> None:
    assert "-" not in LATEST
    assert table_of(for_web()) == table_of(for_web(LATEST)) != table_of(for_web(OLD))


def test_only_onnxruntime_web_has_a_table(tmp_path: Path) -> None:
    onnx.save(model(node("Warp")), tmp_path / "model.onnx")
    assert missing_of(load_profile("cpu"), [tmp_path / "model.onnx"]) == []
    assert missing_of(load_profile("apple"), [tmp_path / "model.onnx"]) == []
    assert missing_of(load_profile("web"), [tmp_path / "model.onnx"]) == ["model.onnx: Warp (y)"]


def test_what_coreml_has_is_not_known(tmp_path: Path) -> None:
    """A gate of it fails as one that was not measured."""
    path = tmp_path / "coreml.toml"
    path.write_text('extends = "parity"\nname = "coreml"\ndescription = ""\nruntime = "coreml"\nprovider = "ALL"\n')
    assert not is_known(load_profile(str(path)))
    assert all(is_known(load_profile(name)) for name in ("cpu", "web", "apple"))


FORMS = [BlockMatMul(block=block, bits=bits) for bits in (4, 8) for block in (32, 64, 128)]
HAS_BLOCKS_OF_8 = {OLD: False, LATEST: True}


@pytest.mark.parametrize("scheme", [DynamicMatMul(), StoredInt(), StoredInt(bits=4), StoredFp16(), *FORMS], ids=label)
@pytest.mark.parametrize("version", [OLD, LATEST])
def test_which_products_of_the_quantizer_run_in_a_browser(version: str, scheme: Scheme, tmp_path: Path) -> None:
    made = graph("(float[1,N,128] x) => (float[1,N,256] y) { y = MatMul(x, w) }", {"w": normal(0, 128, 256)})
    quantize(made, Recipe(rules=(Rule(pattern="*", scheme=scheme),)), {})
    save(made, tmp_path / "model.onnx")
    expected = []
    if isinstance(scheme, BlockMatMul) and scheme.bits == 8 and not HAS_BLOCKS_OF_8[version]:
        form = f"bits=8, block_size={scheme.block}, accuracy_level=4"
        expected = [f"model.onnx: com.microsoft.MatMulNBits with {form} (w/int8)"]
    assert missing_of(for_web(version), [tmp_path / "model.onnx"]) == expected


@pytest.mark.parametrize(("version", "forms"), [(OLD, {"NONE"}), (LATEST, {"NONE", "PER_CHANNEL"})])
def test_attention_in_8_bits_and_its_weights_as_an_output_came_later(
    version: str, forms: set[str], tmp_path: Path
) -> None:
    table = table_of(for_web(version))
    assert table is not None
    for kind, qk_output in itertools.product(("NONE", "PER_CHANNEL"), (0, 2)):
        bits = {"k_quant_type": kind, "v_quant_type": kind, "kv_cache_bit_width": 8} if kind != "NONE" else {}
        made = model(node("GroupQueryAttention", "n", MICROSOFT, do_rotary=1, qk_output=qk_output, **bits))
        has = kind in forms and (qk_output == 0 or version == LATEST)
        assert (lacking(tmp_path, made, table) == []) is has


def test_the_table_is_what_the_installed_runtime_does(tmp_path: Path) -> None:
    """Measured again, for the version that transformers.js 3.8.1 brings: onnxruntime's own operators."""
    installed = CLIENTS / "node_modules/onnxruntime-web/package.json"
    if not installed.is_file() or shutil.which("node") is None:
        pytest.fail("this client is not installed: run scripts/setup_clients.sh", pytrace=False)
    version = json.loads(installed.read_text())["version"]
    known = {op: has for op, has in web.known()[version]["operators"].items() if op.startswith(MICROSOFT)}
    script = "import json, web_operators as w; from pathlib import Path; "
    script += f"print(json.dumps(w.measure_microsoft(w.Web(Path({str(CLIENTS)!r}), 'onnxruntime-web', Path.cwd()))))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(SCRIPTS)}, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == known
