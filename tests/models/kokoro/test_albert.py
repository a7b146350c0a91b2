"""Our ALBERT is transformers' AlbertModel."""

from __future__ import annotations

import pytest
import torch
from kokoro_files import tiny_config
from transformers import AlbertConfig, AlbertModel

from jtts_export.models.kokoro.albert import Albert
from jtts_export.models.kokoro.config import KokoroConfig
from jtts_export.models.kokoro.random import official_config


@pytest.mark.parametrize("raw", [tiny_config(), official_config()], ids=["tiny", "official"])
@pytest.mark.parametrize("length", [3, "longest"])
@torch.no_grad()
def test_albert_equals_transformers(raw: dict, length: int | str) -> None:
    cfg = KokoroConfig.model_validate(raw)
    torch.manual_seed(0)
    theirs = AlbertModel(AlbertConfig(vocab_size=cfg.n_token, **raw["plbert"])).eval()
    for parameter in theirs.parameters():  # biases and norms start as constants, which would hide a mix-up
        parameter.add_(0.02 * torch.randn_like(parameter))
    ours = Albert(cfg.plbert, cfg.n_token).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)

    tokens = cfg.plbert.max_position_embeddings if length == "longest" else length
    input_ids = torch.randint(0, cfg.n_token, (1, tokens))
    expected = theirs(input_ids, attention_mask=torch.ones_like(input_ids)).last_hidden_state
    # Values of order 1 after layer norm; float32 sums of 2048 terms, 12 layers deep, in another order.
    torch.testing.assert_close(ours(input_ids), expected, rtol=1e-4, atol=2e-5)
