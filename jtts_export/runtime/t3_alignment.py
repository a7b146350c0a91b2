"""Where in the text T3 (Chatterbox) is while it speaks, and when to make it stop. numpy only.

The checks are those of the authors' AlignmentStreamAnalyzer (chatterbox-tts 0.1.7), which they use with the
multilingual checkpoint only. It keeps every row of attention; here, sums and maxima stand for them.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

StopReason = Literal["long_tail", "repetition", "token_repetition"]

FORCED = 2.0**15  # a logit that every type of 16 bits or more can hold
MOST_BACK, MOST_AHEAD = 4, 7  # tokens: a jump as far as that, or farther, is not followed
ENDING = 3  # the last tokens of the text: end-of-text and, mostly, punctuation
SHORT = 5  # in a text of no more tokens nothing comes before its end
MOST_ATTENTION = 5.0  # steps of full attention, 0.2 s, that may go to one token of the ending, or to earlier text


class AlignmentAnalyzer:
    """State of one utterance. Public attributes describe the last step.

    position: token of the text that is being spoken. started: speech has settled at the beginning of the text; it
    is reported only, and like the authors' has no effect. complete: the end of the text has been reached.
    stop_reason: why a stop was forced, if it was.
    """

    def __init__(self, text_length: int, stop_token: int) -> None:
        """text_length: tokens of the text, start and end tokens and language tag included."""
        self.position = 0
        self.started = False
        self.complete = False
        self.stop_reason: StopReason | None = None
        self._length, self._stop_token = text_length, stop_token
        self._steps = 0
        self._tokens: list[int] = []
        self._first_peak = np.float32(0)
        self._last_peaks: list[np.float32] = []
        # What was attended to since the text was complete. The authors' float32 sums depend, in the last digit, on
        # the processor; these are exact, and rounded to float32 when compared.
        self._ending = np.zeros(min(ENDING, text_length))
        self._earlier = 0.0

    def apply(self, logits: np.ndarray, attention: np.ndarray, last_token: int) -> np.ndarray:
        """The guided logits f32 [vocab] with the stop token held back or forced; the array given is left unchanged.

        attention: f32 [rows, text_length], the conditional row's, mean of its alignment heads. At the first step it
        has a row for each start-of-speech token (the authors feed two), later one. last_token: the one fed,
        start-of-speech at the first step.
        """
        attended = attention.copy()
        attended[:, self._steps + 1 :] = 0  # no more than a token a step can have been spoken
        self._steps += 1
        current = int(attended[-1].argmax())
        self._follow(current)
        self._await_start(attended)
        self._watch_ending(attended)
        self.stop_reason = self._find_stop_reason(last_token)
        if self.stop_reason:
            logits = np.full_like(logits, -FORCED)
            logits[self._stop_token] = FORCED
        elif current < self._length - ENDING and self._length > SHORT:
            logits = logits.copy()
            logits[self._stop_token] = -FORCED
        return logits

    def _follow(self, current: int) -> None:
        if -MOST_BACK < current - self.position < MOST_AHEAD:
            self.position = current

    def _await_start(self, attended: np.ndarray) -> None:
        """Started: something of the first four tokens was attended to, and nothing of the last two lately."""
        if self.started:
            return
        self._first_peak = max(self._first_peak, attended[:, :4].max())
        self._last_peaks = [*self._last_peaks, *attended[:, -2:].max(axis=1)][-2:]
        self.started = bool(max(self._last_peaks) <= 0.1 and self._first_peak >= 0.5)

    def _watch_ending(self, attended: np.ndarray) -> None:
        """Complete, once it is near the end; what is attended to in the steps after that is added up."""
        if not self.complete:
            self.complete = self.position >= self._length - ENDING
            return
        self._ending += attended[:, -ENDING:].sum(axis=0)
        if self._length > SHORT:
            self._earlier += float(attended[:, :-SHORT].max(axis=1).sum())

    def _find_stop_reason(self, last_token: int) -> StopReason | None:
        self._tokens = [*self._tokens[-2:], last_token]
        if np.float32(self._ending.max()) >= MOST_ATTENTION:
            return "long_tail"
        if np.float32(self._earlier) > MOST_ATTENTION:
            return "repetition"
        if len(self._tokens) == 3 and self._tokens[-1] == self._tokens[-2]:  # two equal ones, but not the first two
            return "token_repetition"
        return None
