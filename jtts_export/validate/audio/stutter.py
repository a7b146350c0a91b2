"""A stutter score: seconds of audio that are said again, left out or stuck, beyond those of the reference."""

from __future__ import annotations

import numpy as np

from .alignment import Path, align, mel_frames, window_samples
from .levels import QUIETEST
from .spectral import FLOOR, finite

SILENCE_NEPERS = 40 / 20 * np.log(10)  # frames 40 dB below the loudest are silent

# A copy: 40 ms that correlate by 0.98 (noise at 17 dB) with what was said 50 to 500 ms earlier.
BLOCK_S, STEP_S, NEAREST_S, FARTHEST_S = 0.04, 0.02, 0.05, 0.5
COPY_CORRELATION = 0.98

# A stuck sound: four frames of 10 ms whose mel spectra differ by less than 2 % (-34 dB) from one to the next. Neither
# speech nor noise has such runs even at 3 %.
STUCK_CHANGE, STUCK_STEPS = 0.02, 3

# A jump: within 300 ms, one signal gains 90 ms on the other. Timing that only differs by a frame or two does not.
JUMP_WITHIN_S, JUMP_S = 0.3, 0.09
END_S = 0.15  # of the reference, where the alignment closes what is left of either signal


def stutter_score(measured: np.ndarray, reference: np.ndarray, sample_rate_hz: int) -> float:
    """Seconds, 0 at best. [samples] each, of any lengths; inf where not finite.

    The greater of two, since a repeated segment shows in both: seconds that are copies of what was just said or stuck
    sounds, less those of the reference; and seconds by which the alignment jumps.
    """
    if not finite(measured, reference):
        return float("inf")
    made, exact = mel_frames(measured, sample_rate_hz), mel_frames(reference, sample_rate_hz)
    return score_of(measured, reference, made, exact, align(made, exact, sample_rate_hz), sample_rate_hz)


def score_of(
    measured: np.ndarray,
    reference: np.ndarray,
    measured_mels: np.ndarray,
    reference_mels: np.ndarray,
    path: Path,
    sample_rate_hz: int,
) -> float:
    """The same, of signals whose log-mels [frames, mels] are aligned already."""
    again = repeated_s(measured, measured_mels, sample_rate_hz) - repeated_s(
        reference, reference_mels, sample_rate_hz
    )
    return max(0.0, again, jumps_s(path, measured_mels, reference_mels, sample_rate_hz))


def repeated_s(audio: np.ndarray, mels: np.ndarray, sample_rate_hz: int) -> float:
    """Seconds of audio that lie in a copy or in a stuck sound, once each."""
    marked = _copies(audio, sample_rate_hz) | _stuck(mels, len(audio), sample_rate_hz)
    return float(marked.sum()) / sample_rate_hz


def jumps_s(path: Path, measured_mels: np.ndarray, reference_mels: np.ndarray, sample_rate_hz: int) -> float:
    """Seconds of sound that the path inserts or leaves out in jumps. Silence may be of any length, and so may the
    end: speech that stops earlier or later is another length, and no stutter."""
    per_s = sample_rate_hz / path.hop
    end = int(np.searchsorted(path.reference, len(reference_mels) - END_S * per_s))
    made, exact = path.measured[:end], path.reference[:end]
    gained = np.diff(made) * _sounds(measured_mels)[made[1:]]
    lost = np.diff(exact) * _sounds(reference_mels)[exact[1:]]
    # A step of both is no step, whether or not both sound.
    both = (np.diff(made) > 0) & (np.diff(exact) > 0)
    ahead = np.concatenate([[0], np.cumsum(np.where(both, 0, gained - lost))])
    within = min(len(ahead) - 1, round(JUMP_WITHIN_S * per_s))
    net = np.abs(ahead[within:] - ahead[: len(ahead) - within])
    over = net >= JUMP_S * per_s
    # What goes on for longer than a window is counted whole.
    whole = [max(net[start:stop].max(), abs(ahead[stop - 1 + within] - ahead[start])) for start, stop in runs(over)]
    return float(sum(whole)) / per_s


def runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """Start and stop of every run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _sounds(mels: np.ndarray) -> np.ndarray:
    """Frames that are not silent, bool [frames]."""
    level = np.log(np.exp(mels).mean(1))
    return np.asarray(level > max(float(level.max()) - SILENCE_NEPERS, np.log(FLOOR)))


def _stuck(mels: np.ndarray, samples: int, sample_rate_hz: int) -> np.ndarray:
    """Samples in frames that hardly differ from one to the next, bool [samples]."""
    size = window_samples(sample_rate_hz)
    hop, linear = size // 4, np.exp(mels)
    change = np.linalg.norm(np.diff(linear, axis=0), axis=1) / np.linalg.norm(linear[1:], axis=1)
    sounds = _sounds(mels)
    marked = np.zeros(samples, bool)
    for start, stop in runs((change < STUCK_CHANGE) & sounds[1:] & sounds[:-1]):
        if (
            stop - start >= STUCK_STEPS
        ):  # frames start to stop, the first three quarters of a window ahead of sample 0
            marked[max(0, start * hop - size + hop) : stop * hop + hop] = True
    return marked


def _copies(audio: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Samples in blocks that were said just before, bool [samples]."""
    block, step, near, far = (round(s * sample_rate_hz) for s in (BLOCK_S, STEP_S, NEAREST_S, FARTHEST_S))
    marked = np.zeros(len(audio), bool)
    if len(audio) < near + block:
        return marked
    centred = audio.astype(np.float64) - audio.mean(dtype=np.float64)
    starts = np.arange(near, len(audio) - block + 1, step)
    blocks = np.lib.stride_tricks.sliding_window_view(centred, block)[starts]
    energy = (blocks**2).sum(1)
    loud = energy > max(energy.max() * 10 ** (-SILENCE_NEPERS * 2 / np.log(10)), block * QUIETEST**2)
    starts, blocks, energy = starts[loud], blocks[loud], energy[loud]

    # `before` holds far - near earlier starts of a block, the last one `near` ahead of the block in question.
    span = far - near + block
    padded = np.concatenate([np.zeros(far), centred])
    squares = np.concatenate([[0], np.cumsum(padded**2)])
    n_fft = 1 << (span - 1).bit_length()  # lags below span - block do not wrap
    for some in np.array_split(np.arange(len(starts)), max(1, len(starts) // 32)):
        before = np.lib.stride_tricks.sliding_window_view(padded, span)[starts[some]]
        product = np.fft.rfft(before, n_fft) * np.conj(np.fft.rfft(blocks[some], n_fft))
        lagged = np.fft.irfft(product, n_fft)[:, : span - block + 1]
        there = starts[some][:, None] + np.arange(span - block + 1)
        power = squares[there + block] - squares[there]
        # As loud as the block, to 6 dB: what is all but silent correlates by rounding.
        alike = (power > energy[some][:, None] / 4) & (lagged > 0)
        found = (alike & (lagged**2 > COPY_CORRELATION**2 * power * energy[some][:, None])).any(1)
        for start in starts[some][found]:
            marked[start : start + block] = True
    return marked
