"""Licences of checkpoints in SPDX's terms, and nothing said of what is not known."""

from __future__ import annotations

from pathlib import Path

import pytest

from jtts_export.licences import SPDX, UNKNOWN, licence_of, spdx
from jtts_export.models import MODELS
from jtts_export.models.source import Source, locate

KOKORO = MODELS["kokoro"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("apache-2.0", "Apache-2.0"),
        ("MIT", "MIT"),
        ("cc-by-nc-sa-4.0", "CC-BY-NC-SA-4.0"),
        ("cc0-1.0", "CC0-1.0"),
        ("gpl-3.0", "GPL-3.0-only"),
        ("lgpl-2.1", "LGPL-2.1-only"),
        ("odbl", "ODbL-1.0"),
        ("openrail", "LicenseRef-openrail"),
        ("llama3.1", "LicenseRef-llama3.1"),
        ("made up, here!", "LicenseRef-made-up-here"),
        ("unknown", UNKNOWN),
        ("other", UNKNOWN),
        ("", UNKNOWN),
        (None, UNKNOWN),
        ({"a": 1}, UNKNOWN),
    ],
)
def test_a_name_of_the_hub_is_one_of_spdx_or_a_reference(name: object, expected: str) -> None:
    assert spdx(name) == expected


def test_spdx_names_stand_for_themselves() -> None:
    assert all(spdx(name) == name for name in SPDX)


def test_what_the_hub_calls_other_has_a_name_of_its_authors() -> None:
    assert spdx("other", "My Voice Licence v2") == "LicenseRef-My-Voice-Licence-v2"


def folder(tmp_path: Path, readme: bytes | None) -> Source:
    (tmp_path / "config.json").write_text("{}")
    if readme is not None:
        (tmp_path / "README.md").write_bytes(readme)
    return locate(str(tmp_path), ("config.json",))


@pytest.mark.parametrize(
    ("readme", "expected"),
    [
        (b"---\nlicense: cc-by-4.0\n---\n# A voice", "CC-BY-4.0"),
        (b"---\r\nlicense: mit\r\n---\r\n", "MIT"),
        (b"---\nlicense: [mit, apache-2.0]\n---\n", "Apache-2.0 AND MIT"),
        (b"---\nlicense: [mit, unknown]\n---\n", UNKNOWN),
        (b"---\nlicense: other\nlicense_name: ours\n---\n", "LicenseRef-ours"),
        (b"---\ntags: [tts]\n---\n", UNKNOWN),
        (b"# license: mit\n", UNKNOWN),
        (b"---\n: [ {\n---\n", UNKNOWN),
        (b"---\nlicense: mit\nname: \xff\xfe\n---\n", UNKNOWN),
        (b"", UNKNOWN),
        (None, UNKNOWN),
    ],
)
def test_a_folder_has_the_licence_that_its_readme_says(tmp_path: Path, readme: bytes | None, expected: str) -> None:
    assert licence_of(folder(tmp_path, readme), KOKORO) == expected


def test_a_readme_is_no_part_of_the_checkpoint(tmp_path: Path) -> None:
    without = folder(tmp_path, None)
    with_it = folder(tmp_path, b"---\nlicense: mit\n---\n")
    assert (with_it.sha256, with_it.hashes, list(with_it.files)) == (without.sha256, without.hashes, ["config.json"])
    assert (without.readme, with_it.readme) == (None, tmp_path / "README.md")


@pytest.mark.parametrize("source", [KOKORO.checkpoint, f"{KOKORO.checkpoint}@abc", f"{KOKORO.checkpoint}#x.pth@abc"])
def test_the_official_repository_has_its_known_licence(source: str) -> None:
    assert licence_of(Source(source, ""), KOKORO) == "Apache-2.0"


def test_a_seed_has_the_official_licence_and_another_repository_none() -> None:
    assert licence_of(locate("random:1", ()), MODELS["t3"]) == "MIT"
    assert licence_of(Source("hub:somebody/Kokoro-82M", ""), KOKORO) == UNKNOWN
