"""`--coreml`: packages beside the graphs, judged, sealed and measured again like them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import speecht5_command
from command import Built, contents, environment, run, stages

PROFILE = """
name = "packages"
description = "packages of a tiny network"
threads = 1

[gates.speecht5.all]
parity_mel_snr_db = ">= 15"

[gates.speecht5.coreml]
coreml_stage_snr_db = ">= 45"
coreml_fp16_snr_db = ">= 40"
coreml_modules_snr_db = ">= 80"
coreml_overflows = "== 0"
parity_mel_snr_db = ">= 35"

[gates.speecht5.coreml-int8]
coreml_stage_snr_db = ">= 25"
coreml_overflows = "== 0"
size_ratio_vs_coreml = "<= 0.9"
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    home = tmp_path_factory.mktemp("coreml")
    config = {"max_speech_positions": 320, "hidden_size": 64}
    speecht5_command.write_checkpoint(home / "checkpoint", config=config, ends=False, seeded=True)
    profile = home / "packages.toml"
    profile.write_text(PROFILE)
    made = Built(home / "out" / "speecht5", profile, home / "cache", home / "checkpoint", "", "")
    done = run(home, *speecht5_command.again(made, home / "out", "--int8", "--coreml"))
    assert done.returncode == 0, (done.stdout, done.stderr)
    return Built(made.release, profile, made.cache, made.checkpoint, done.stdout, done.stderr)


def test_packages_lie_beside_the_graphs_and_are_in_the_manifest(built: Built) -> None:
    manifest = json.loads((built.release / "manifest.json").read_text())
    validation = json.loads((built.release / "validation.json").read_text())
    for variant in ("coreml", "coreml-int8"):
        packages = sorted(path.name for path in (built.release / variant).glob("*.mlpackage"))
        assert packages == [f"{stage}.mlpackage" for stage in sorted(manifest["coreml"]["stages"])]
        listed = {name for name in manifest["files"] if name.startswith(f"{variant}/") and ".mlpackage/" in name}
        assert listed == set(validation["variants"][variant]["files"])
        assert validation["variants"][variant]["verdict"] == "pass"
    assert manifest["coreml"]["target"] == "iOS18"
    assert manifest["coreml"]["stages"]["decoder"]["compute_units"]
    assert {held["scheme"] for held in manifest["coreml"]["variants"]["coreml-int8"].values()} <= {"linear8", "fp16"}


def test_the_release_says_how_to_chain_the_packages(built: Built) -> None:
    page = (built.release / "coreml" / "README.md").read_text()
    manifest = json.loads((built.release / "manifest.json").read_text())
    assert all(f"### {stage}\n" in page for stage in manifest["coreml"]["stages"])
    for page in ("report/report.md", "README.md"):
        assert "not on Apple hardware" in (built.release / page).read_text()


def test_an_unchanged_build_does_nothing(built: Built, tmp_path: Path) -> None:
    before = contents(built.release)
    done = run(tmp_path, *speecht5_command.again(built, built.release.parent, "--int8", "--coreml"))
    assert done.returncode == 0
    assert set(stages(done.stderr).values()) == {"cached"}
    assert contents(built.release) == before


def test_a_changed_byte_of_a_package_is_refused_by_name(built: Built, tmp_path: Path) -> None:
    weights = next((built.release / "coreml" / "encoder.mlpackage").rglob("weight.bin"))
    content = weights.read_bytes()
    try:
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        done = run(tmp_path, "inspect", str(built.release))
    finally:
        weights.write_bytes(content)
    assert done.returncode == 3
    assert "coreml/encoder.mlpackage/Data/com.apple.CoreML/weights/weight.bin is not the file" in done.stderr


def test_a_release_is_measured_again_with_its_packages(built: Built, tmp_path: Path) -> None:
    done = run(tmp_path, "validate", str(built.release), "--checkpoint", str(built.checkpoint), "--json")
    assert done.returncode == 0, done.stderr
    again = json.loads(done.stdout)["variants"]
    first = json.loads((built.release / "validation.json").read_text())["variants"]
    for variant in ("coreml", "coreml-int8"):
        assert again[variant]["files"] == first[variant]["files"]
        assert again[variant]["metrics"]["coreml_stage_snr_db"] == pytest.approx(
            first[variant]["metrics"]["coreml_stage_snr_db"], abs=0.5
        )


def test_without_the_extra_one_line_says_what_to_install(tmp_path: Path) -> None:
    code = "import sys; sys.modules['coremltools'] = None; from jtts_export.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "kokoro", "--coreml", "--checkpoint", "random:0"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(tmp_path),
        check=False,
    )
    assert done.returncode == 4
    assert done.stderr == "jtts-export: CoreML needs coremltools: pip install jtts-export[coreml]\n"
    assert not (tmp_path / "release").exists()
