"""docs/mil.md: its list of ops and its example."""

import re
from pathlib import Path

import pytest
import torch
from mil.programs import save_model

from jtts_export import mil

PAGE = (Path(__file__).parents[2] / "docs" / "mil.md").read_text(encoding="utf-8")


def test_the_page_lists_every_op() -> None:
    listed = re.findall(r"`(\w+)`", PAGE.split("<!-- ops")[1])
    assert listed == mil.supported_ops()


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    save_model(torch.nn.Linear(8, 2), {"x": torch.zeros(1, 8)}, tmp_path / "net.mlpackage", precision="FLOAT16")
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(example, "mil.md", "exec"), {})  # noqa: S102
    assert capsys.readouterr().out.strip() in example
