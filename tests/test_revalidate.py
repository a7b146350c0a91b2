"""A release judged for another profile: what that does not allow is refused before anything is measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import Built, assert_refused, call

USAGE = 2


@pytest.mark.parametrize(
    ("restriction", "named"),
    [
        ('variants = ["fp16"]', ["int8", "fp16"]),
        ('schemes = ["stored-fp16"]', ["int8", "static-conv", "stored-fp16"]),
    ],
)
def test_a_profile_that_does_not_allow_a_variant_refuses_the_release(
    built: Built, tmp_path: Path, restriction: str, named: list[str]
) -> None:
    profile = tmp_path / "strict.toml"
    profile.write_text(f'extends = "parity"\nname = "strict"\ndescription = "a target with less"\n{restriction}\n')
    done = call(tmp_path, "validate", built.release, "--profile", profile)
    assert_refused(done, USAGE, *named)
