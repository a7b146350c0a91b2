"""`python -m bench.publish RELEASE`: publish a release to the tests' hub on this machine, download it, compare,
validate the copy, and publish the release again. Prints what each takes: of disks, hashes and a local socket, not of
a line to somewhere.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from jtts_export import artifact

from .common import ROOT, say, table, timed

sys.path.append(str(ROOT / "tests"))

from hub.repository import Repository
from hub.server import Hub, serve

REPO, TOKEN = "bench/release", "hf_bench"
DOWNLOAD = "import sys, huggingface_hub; huggingface_hub.snapshot_download(sys.argv[1], local_dir=sys.argv[2])"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("release", type=Path)
    parser.add_argument("--part-mb", type=float, default=0, help="upload larger files in parts of this size")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, serve(Hub(Path(folder) / "hub", writers=(TOKEN,))) as hub:
        hub.part = int(given.part_mb * 1e6)
        os.environ |= {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": f"{folder}/home", "NO_PROXY": "*"}
        print("\n".join(measure(given.release, hub, Path(folder))))


def measure(release: Path, hub: Hub, folder: Path) -> list[str]:
    """A table of seconds and memory. Raises AssertionError where anything is not as it should be."""
    command = [sys.executable, "-m", "jtts_export.cli"]
    publish = [*command, "publish", str(release), "--repo", REPO]
    copy = folder / "copy"
    rows = [_row("publish --dry-run", [*publish, "--dry-run"])]
    assert REPO not in hub.repositories
    rows.append(_row("publish", publish))
    repository = hub.repositories[REPO]
    _check(release, repository)
    rows.append(_row("snapshot_download", [sys.executable, "-c", DOWNLOAD, REPO, str(copy)]))
    assert artifact.verify(copy)[0] == artifact.read(release)[0]
    rows.append(_row("validate the copy", [*command, "validate", str(copy)]))
    rows.append(_row("publish, nothing new", publish))
    assert len(repository.history("main")) == 2, "the same release made another commit"
    files = artifact.read(release)[0].files.values()
    size = sum(entry.size for entry in files) / 1e6
    return [f"{len(files) + 1} files, {size:.1f} MB, {len(hub.requests)} requests.", "", *table(_HEADER, rows)]


_HEADER = ["step", "seconds", "peak MB"]


def _row(step: str, command: list[str]) -> list[str]:
    say(step)
    seconds, peak = timed(command)
    return [step, f"{seconds:.1f}", f"{peak:.0f}"]


def _check(release: Path, repository: Repository) -> None:
    """One commit, with every file of the release and nothing else."""
    manifest = artifact.read(release)[0]
    tree = {name: content for name, content in repository.head.tree.items() if name != ".gitattributes"}
    assert set(tree) == {*manifest.files, artifact.MANIFEST}
    for name, entry in manifest.files.items():
        assert tree[name].size == entry.size, name
        assert tree[name].sha256 in (None, entry.sha256), name
    assert len(repository.history("main")) == 2
    assert len(repository.tags) == 1


if __name__ == "__main__":
    main()
