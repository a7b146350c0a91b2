"""What is published of a release folder, and the proof that it may be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jtts_export.artifact import MANIFEST, VALIDATION, Manifest, has_a_dotted_part, links, verify
from jtts_export.errors import GateFailed, OutsideError
from jtts_export.models import MODELS
from jtts_export.report.facts import public, text

from .files import Verified, changed, verified
from .verdict import check_passed


@dataclass(frozen=True)
class Passed:
    """A release that may be published: its manifest, and every file with the bytes that were checked."""

    manifest: Manifest
    files: Mapping[str, Verified]

    @property
    def name(self) -> str:
        """Of these very bytes, and so of their tag."""
        return f"{self.manifest.model}-{self.manifest.seal[:12]}"

    @property
    def title(self) -> str:
        """Of the commit: one line that no other release has."""
        variants = text(", ".join(self.manifest.variants))
        return f"{self.manifest.model}: {variants} from {self._source} ({self.name})"

    @property
    def description(self) -> str:
        """Of the commit: what was published, and how to know it again."""
        manifest = self.manifest
        revision, sha256 = (manifest.checkpoint.get(key) for key in ("revision", "sha256"))
        variants = [*manifest.variants, *manifest.coreml.get("variants", {})]
        return "\n".join(
            [
                f"{MODELS[manifest.model].title}, by jtts-export {text(manifest.tool_version)}.",
                f"Checkpoint: {self._source}{f' at {text(revision)}' if revision else ''}, sha256 {text(sha256)}.",
                f"Profile: {text(manifest.profile['name'])}. Variants: {text(', '.join(variants))}. Verdict: pass.",
                f"Seal of {MANIFEST}: {manifest.seal}.",
            ]
        )

    @property
    def folder(self) -> str | None:
        """The local folder that the manifest names, which everybody will see."""
        source = str(self.manifest.checkpoint["source"])
        return source if public(source) != source else None

    @property
    def _source(self) -> str:
        return text(public(str(self.manifest.checkpoint["source"])), 80)


def check(release: Path, profile: str | None) -> Passed:
    """Verify a release, judge it again, and hold on to what was read.

    profile: the one that it must have passed; without, see verdict.check_passed. Raises GateFailed where the release
    did not pass or is not, byte for byte, what did; OutsideError where there is none, BadInput where there is no such
    profile.
    """
    manifest = _verified(release)
    for link in links(release):
        raise GateFailed(f"{release}: {link.relative_to(release).as_posix()} is a link; publish a folder of files")
    if hidden := [name for name in manifest.files if has_a_dotted_part(name)]:
        raise GateFailed(f"{release}: {hidden[0]} is named like bookkeeping, which is never published")
    files = _read(release, manifest)
    if Manifest.model_validate_json(files[MANIFEST].read()) != manifest:
        raise changed(MANIFEST)
    validation = _content(files[VALIDATION])
    try:
        check_passed(manifest, validation, profile)
    except GateFailed as error:
        raise GateFailed(f"{release} is not published: {error}") from error
    for variant in validation["variants"].values():
        for name, sha256 in variant["files"].items():  # of which verify() has read another copy
            if name not in files or files[name].sha256 != sha256:
                raise changed(name)
    return Passed(manifest, files)


def _verified(release: Path) -> Manifest:
    """verify(), to which what is there but is no release of this form has not passed either."""
    try:
        return verify(release)[0]
    except OutsideError as error:
        if isinstance(error.__cause__, OSError) or not (release / MANIFEST).is_file():
            raise
        raise GateFailed(str(error)) from error


def _read(release: Path, manifest: Manifest) -> dict[str, Verified]:
    try:
        files = {name: verified(release, name, entry) for name, entry in manifest.files.items()}
        return {**files, MANIFEST: verified(release, MANIFEST, None)}
    except OSError as error:
        raise OutsideError(f"cannot read {error.filename or release}: {error.strerror}") from error


def _content(validation: Verified) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(validation.read())
    return content
