"""T3's graphs around its language model: the voice, and the embeddings of tokens."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from jtts_export.models.t3.model import T3

from .builder import Builder


class Conditioning(nn.Module):
    """Speaker embedding [1, size] and the embeddings of a prompt [1, tokens, hidden] to [1, 1 + queries, hidden];
    [1, 1, hidden] of no prompt.

    T3.condition() in a form that a trace can hold: no prompt is read as one row of zeros, and what comes of it left
    out.
    """

    def __init__(self, model: T3) -> None:
        super().__init__()
        self.spkr_enc, self.perceiver = model.cond_enc.spkr_enc, model.cond_enc.perceiver
        self.queries = model.config.queries

    def forward(self, speaker_emb: Tensor, prompt: Tensor) -> Tensor:
        speaker = self.spkr_enc(speaker_emb)[:, None]
        count = torch.ones_like(prompt[0, :, 0], dtype=torch.int64).sum()
        used = torch.cat([prompt, torch.zeros_like(speaker)], 1)[:, : count.clamp(min=1)]
        return torch.cat([speaker, self.perceiver(used)[:, : self.queries * count.clamp(max=1)]], 1)


@torch.no_grad()
def embed_tokens(model: T3, opset: int) -> ir.Model:
    """Tokens and their positions to embeddings, as the community's graph of this name does it.

    Inputs: input_ids int64 [batch, sequence], position_ids int64 [batch, sequence], exaggeration [1]. Output:
    inputs_embeds [batch, sequence, hidden].

    A prompt has several tokens: those below the start of speech are of the text, one after the stop of speech
    stands for the emotion, the others are of speech. A token alone is of speech. Beyond what the community's graph
    knows, -1 in a prompt is a text position without a token.
    """
    config, b = model.config, Builder("embed_tokens", opset)
    ids, positions = (b.input(n, ir.DataType.INT64, ["batch", "sequence"]) for n in ("input_ids", "position_ids"))
    exaggeration = b.input("exaggeration", ir.DataType.FLOAT, [1])
    one, zero = b.constant("one", np.int64(1)), b.constant("zero", np.int64(0))
    length = b.node("Gather", [b.node("Shape", [ids], "ids/shape"), one], "ids/length")
    several = b.node("Greater", [length, one], "ids/several")
    below = b.node("Less", [ids, b.constant("start_speech", np.int64(config.start_speech))], "ids/below")
    is_text = b.node("And", [below, several], "is_text")
    emotion = b.node("Equal", [ids, b.constant("emotion", np.int64(config.exaggeration_token))], "ids/emotion")
    is_emotion = b.node("And", [emotion, several], "is_emotion")
    not_speech = b.node("Or", [is_text, is_emotion], "not_speech")

    def embedded(kind: str, wanted: ir.Value, tokens: Tensor, places: Tensor) -> ir.Value:
        """Rows of both tables, those of token and position 0 where the token is of another kind."""
        names = [(f"{kind}_emb.weight", tokens, ids), (f"{kind}_pos_emb.emb.weight", places, positions)]
        rows = []
        for name, table, index in names:
            index = b.node("Where", [wanted, index, zero], f"{name}/index")
            rows.append(b.node("Gather", [b.constant(name, table), index], f"{name}/rows"))
        return b.node("Add", rows, f"{kind}_embeds")

    is_speech = b.node("Not", [not_speech], "is_speech")
    nothing = torch.zeros(1, config.hidden_size)  # the last row, which -1 asks for
    text = embedded("text", is_text, torch.cat([model.text_emb.weight, nothing]), model.text_pos_emb.emb.weight)
    speech = embedded("speech", is_speech, model.speech_emb.weight, model.speech_pos_emb.emb.weight)
    way = b.constant("cond_enc.emotion_adv_fc.weight", model.cond_enc.emotion_adv_fc.weight[:, 0])
    moved = b.node("Mul", [exaggeration, way], "emotion_embeds")
    last = b.constant("last", np.array([-1]))
    text_here, emotion_here = (b.node("Unsqueeze", [v, last], f"{v.name}/here") for v in (is_text, is_emotion))
    spoken = b.node("Where", [emotion_here, moved, speech], "spoken")
    embeds = b.node("Where", [text_here, text, spoken], "embeds")
    b.output(embeds, "inputs_embeds", ["batch", "sequence", config.hidden_size])
    return b.model()
