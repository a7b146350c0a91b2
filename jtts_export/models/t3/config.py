"""T3's sizes. The authors publish no config.json: a checkpoint's tensors say what they can. No torch here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

ENGLISH_VOCAB, MULTILINGUAL_VOCAB = 704, 2454
ALIGNMENT_HEADS = ((12, 15), (13, 11), (9, 2))  # the authors' alignment_stream_analyzer.py
HEAD_SIZE = 64  # as Llama_520M in the authors' llama_configs.py


@dataclass(frozen=True)
class T3Config:
    """Everything that shapes the network or its inputs; the defaults are the official English model's.

    alignment_heads: (layer, head) of those whose attention follows the text.
    """

    text_vocab: int = ENGLISH_VOCAB
    speech_vocab: int = 8194
    hidden_size: int = 1024
    layers: int = 30
    heads: int = 16
    head_size: int = HEAD_SIZE
    ffn_size: int = 4096
    rms_eps: float = 1e-5
    rope_theta: float = 500_000.0
    rope_factor: float = 8.0
    rope_low_freq_factor: float = 1.0
    rope_high_freq_factor: float = 4.0
    rope_original_positions: int = 8192
    max_text_tokens: int = 2048
    max_speech_tokens: int = 4096
    start_text: int = 255
    stop_text: int = 0
    start_speech: int = 6561
    stop_speech: int = 6562
    speaker_size: int = 256
    queries: int = 32
    perceiver_heads: int = 4
    alignment_heads: tuple[tuple[int, int], ...] = ALIGNMENT_HEADS

    @property
    def is_multilingual(self) -> bool:
        """Whether the text begins with the tag of its language."""
        return self.text_vocab == MULTILINGUAL_VOCAB

    @property
    def exaggeration_token(self) -> int:
        """What stands for the emotion in a prompt of tokens, as the community's graphs have it."""
        return self.stop_speech + 1

    @property
    def positions(self) -> int:
        """The most that a prompt and its speech can take: voice, emotion, text, two starts, speech."""
        return 1 + self.queries + 1 + self.text_positions + 1 + self.speech_positions

    @property
    def text_positions(self) -> int:
        """Rows of the text position table."""
        return self.max_text_tokens + 2

    @property
    def speech_positions(self) -> int:
        """Rows of the speech position table."""
        return self.max_speech_tokens + 4

    @cached_property
    def inverse_frequencies(self) -> tuple[float, ...]:
        """Radians per position of each rotary pair, [head_size / 2], scaled as Llama 3.1's are."""
        plain = [self.rope_theta ** (-2 * i / self.head_size) for i in range(self.head_size // 2)]
        return tuple(self._scaled(frequency) for frequency in plain)

    def _scaled(self, frequency: float) -> float:
        turns = self.rope_original_positions * frequency / (2 * math.pi)
        low, high = self.rope_low_freq_factor, self.rope_high_freq_factor
        kept = min(max((turns - low) / (high - low), 0.0), 1.0)
        return frequency * (kept + (1 - kept) / self.rope_factor)
