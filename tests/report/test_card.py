"""What is printed of a release, and its model card as a Markdown parser reads it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, ModelCardData
from markdown_it import MarkdownIt
from report.releases import measured

from jtts_export import card
from jtts_export.models import MODELS
from jtts_export.snippets import snippets

MADE = {"ladder": {"steps": [{"gate": "g >= 20", "promoted": {"w": "stored-fp16"}, "error_share": {"w": 0.75}}]}}


def of(source: str) -> dict[str, Any]:
    validation = measured(("fp32", "int8"))
    return {**validation, "checkpoint": {**validation["checkpoint"], "source": source, "revision": None}}


def written(validation: dict[str, Any], licence: str = "Apache-2.0", files: Sequence[str] = ()) -> str:
    return card.render(validation, MODELS["kokoro"], licence, ["en", "fr"], files)


def metadata(validation: dict[str, Any], licence: str = "Apache-2.0") -> ModelCardData:
    """As the hub's own library reads it; a model-index that is not valid it refuses."""
    return ModelCard(written(validation, licence), ignore_metadata_errors=False).data


def origin(source: str) -> str:
    """What the card says that a release was made from, as it is read."""
    html = MarkdownIt("commonmark", {"html": True}).render(written(of(source)))
    (paragraph,) = re.findall(r"<p>Made by jtts-export \S+ from (.*?) \(sha256", html)
    (code,) = re.fullmatch(r"<code>([^<]*)</code>", paragraph).groups()  # type: ignore[union-attr]
    return unescape(code)


@pytest.mark.parametrize("source", ["hub:hexgrad/Kokoro-82M", "hub:a/b_c_d@v1.0", "random:0"])
def test_the_card_says_where_a_checkpoint_is_from(source: str) -> None:
    assert origin(source) == source


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Kokoro-82M", "Kokoro-82M"),
        ("a`b`c", "a'b'c"),
        ("*bold* _it_ <b> [x](y) ![z] &amp; $e$", "*bold* _it_ <b> [x](y) ![z] &amp; $e$"),
        ("two\n\n# lines", "two # lines"),
        ("right\u202eot\u200btfel", "right\ufffdot\ufffdtfel"),
    ],
)
def test_the_card_shows_the_name_of_a_folder_as_it_is_and_no_other_folder(name: str, shown: str) -> None:
    assert origin(f"/home/somebody/{name}") == shown


@pytest.mark.parametrize(("measured_", "shown"), [("-inf", "-inf"), ("inf", "inf"), (12.3456, "12.3"), (-4, "-4")])
def test_a_promotion_is_told_whatever_was_measured(measured_: object, shown: str) -> None:
    (step,) = MADE["ladder"]["steps"]
    (line,) = card.ladder_lines("int8", {"ladder": {"steps": [{**step, "measured": measured_}]}})
    assert line == f"int8: g >= 20 was {shown}: promoted w to stored-fp16 (75% of the error)"


def test_weights_are_counted_by_scheme_the_most_frequent_first() -> None:
    schemes = {"a": "stored-fp16", "b": "static-conv", "c": "static-conv", "d": "float32", "e": "static-conv"}
    lines = card.scheme_lines("int8", {"schemes": {**schemes, "f": "stored-fp16"}})
    assert lines == ["int8: 3 static-conv, 2 stored-fp16, 1 float32"]
    assert card.scheme_lines("fp32", {"files": []}) == []


def test_the_hub_reads_what_it_needs() -> None:
    data = metadata(of("hub:hexgrad/Kokoro-82M@v1.0"))
    assert (data.library_name, data.pipeline_tag, data.license) == ("onnx", "text-to-speech", "apache-2.0")
    assert data.language == ["en", "fr"]
    assert data.base_model == "hexgrad/Kokoro-82M"
    assert data.tags == ["onnx", "text-to-speech", "kokoro", "int8"]
    assert metadata(of("hub:a/b#file.st@v1")).base_model == "a/b"


@pytest.mark.parametrize("source", ["random:0", "demo", "/home/somebody/hub:x", "/home/a\nbase_model: x/y"])
def test_what_is_not_of_the_hub_has_no_base_model(source: str) -> None:
    assert metadata(of(source)).base_model is None


def test_the_main_figures_are_the_hubs_to_show() -> None:
    validation = of("random:0")
    validation["variants"]["fp32"]["metrics"]["parity_decoder_snr_db"] = "inf"
    results = {result.metric_name: result.metric_value for result in metadata(validation).eval_results}
    assert results["int8: RTF"] == validation["variants"]["int8"]["metrics"]["rtf_warm_p50"]
    assert results["fp32: MB"] == 326.4
    assert "fp32: decoder dB" not in results  # no number that YAML and JSON both have
    validation["variants"] = {name: {**v, "metrics": {}} for name, v in validation["variants"].items()}
    assert metadata(validation).eval_results is None


@pytest.mark.parametrize(
    ("licence", "said"),
    [
        ("MIT", {"license": "mit"}),
        ("GPL-3.0-only", {"license": "gpl-3.0"}),
        ("NOASSERTION", {"license": "unknown"}),
        ("Apache-2.0 AND CC-BY-NC-4.0", {"license": ["apache-2.0", "cc-by-nc-4.0"]}),
        ("LicenseRef-my-own", {"license": "other", "license_name": "my-own"}),
    ],
)
def test_licences_are_named_as_the_hub_names_them(licence: str, said: dict[str, Any]) -> None:
    data = metadata(of("random:0"), licence).to_dict()
    assert {key: data.get(key) for key in ("license", "license_name") if key in data} == said


@pytest.mark.parametrize(
    ("text", "languages"),
    [
        ("---\nlanguage: fr\n---\n", ["fr"]),
        ("---\nlanguage:\n- de\n- pt-BR\n- de\n---\n", ["de", "pt-BR"]),
        ("---\nlanguage: [no code, 3, null]\n---\n", ["en"]),
        ("---\nlicense: mit\n---\n", ["en"]),
        ("# No front matter", ["en"]),
        ("---\n: [\n---\n", ["en"]),
    ],
)
def test_languages_are_those_of_the_checkpoints_readme(tmp_path: Path, text: str, languages: list[str]) -> None:
    (tmp_path / "README.md").write_text(text)
    assert card.languages(tmp_path / "README.md") == languages
    assert card.languages(None) == ["en"]


def test_code_is_of_the_files_that_are_there() -> None:
    """Of the smallest variant that clients load, and a voice that the release has; tests/clients runs it."""
    files = [
        "onnx/model.onnx",
        'voices/a"; x.bin',
        "voices/bf_x.bin",
        "voices/af_y.bin",
        "clients/kokoro-onnx/voices.npz",
    ]
    text = written(of("random:0"), files=files)
    assert 'Kokoro("onnx/model_quantized.onnx", "clients/kokoro-onnx/voices.npz")' in text
    assert 'voice="af_y"' in text
    shown = snippets(MODELS["kokoro"], ("fp32",), files)
    assert any('Kokoro("onnx/model.onnx"' in snippet.code for snippet in shown)
    assert any('dtype: "fp32"' in snippet.code for snippet in shown)
    for name, info in MODELS.items():
        for snippet in snippets(info, ("fp32", "int8", "int8-fast"), ()):
            assert "ORG/" not in snippet.code, name
