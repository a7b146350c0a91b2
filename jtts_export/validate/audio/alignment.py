"""Which moment of one signal is which of another (dynamic time warping), and distances that need to know it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .spectral import finite, log_mel, power_of_2

MELS = 40  # coarse, so that windows of 32 ms still fill every band
BAND_S = 2.0  # how far two signals may be apart, beyond their difference in length
RANGE_NEPERS = 60 / 20 * np.log(10)  # what is 60 dB below the loudest does not steer the path
_ALONG, _DOWN = 2, 1  # steps: measured alone goes on; reference alone goes on; 0: both


@dataclass(frozen=True)
class Path:
    """reference, measured: frames that belong together, int [steps], neither ever falling; hop in samples."""

    reference: np.ndarray
    measured: np.ndarray
    hop: int


def window_samples(sample_rate_hz: int) -> int:
    """About 40 ms: 1024 at 24 kHz; a quarter of it is the hop."""
    return power_of_2(1024 * sample_rate_hz / 24_000)


def mel_frames(audio: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Log-mels to align by, [frames, MELS]."""
    return log_mel(audio, sample_rate_hz, window_samples(sample_rate_hz), MELS).T


def align(measured: np.ndarray, reference: np.ndarray, sample_rate_hz: int) -> Path:
    """Of log-mels [frames, MELS], the path of least summed Euclidean distance (steps of 1, all of weight 1; Sakoe and
    Chiba 1978), within BAND_S of the straight line. Time and memory grow with the length, not with its square.

    Levels are made equal first: where all frames are off by a factor, the best path is the one that has fewest.
    """
    hop = window_samples(sample_rate_hz) // 4
    floor = reference.max() - RANGE_NEPERS
    a, b = np.maximum(reference, floor), np.maximum(measured + _level(reference) - _level(measured), floor)
    slope = (len(b) - 1) / max(1, len(a) - 1)
    radius = int(max(BAND_S * sample_rate_hz / hop, 2 * slope + 2, len(b) if len(a) == 1 else 0))
    first = np.maximum(0, np.round(np.arange(len(a)) * slope).astype(int) - radius)
    width = 2 * radius + 1

    moves = np.zeros((len(a), width), np.uint8)
    above = np.full(len(b) + 1, np.inf)  # cost of the row above, one column to the right: [-1] is no column
    for i, start in enumerate(first):
        stop = min(len(b), start + width)
        cost = np.sqrt(((b[start:stop] - a[i]) ** 2).sum(1))
        down, both = above[start + 1 : stop + 1], above[start:stop]
        before = np.minimum(down, both)
        if i == 0:
            before = np.full(stop - start, np.inf)
            before[0] = 0
        # Along a row, D[j] = cost[j] + min(before[j], D[j - 1]): a running minimum, sums taken out.
        total = np.cumsum(cost)
        here = total + np.minimum.accumulate(before - (total - cost))
        along = np.zeros(stop - start, bool)
        along[1:] = here[:-1] < before[1:] - 1e-9  # where alike but for rounding, both go on
        moves[i, : stop - start] = np.where(along, _ALONG, np.where(both <= down, 0, _DOWN))
        above = np.full(len(b) + 1, np.inf)
        above[start + 1 : stop + 1] = here
    return Path(*_back(moves, first, len(a) - 1, len(b) - 1), hop)


def _level(mels: np.ndarray) -> float:
    """Log of the mean amplitude."""
    return float(np.log(np.exp(mels).mean()))


def _back(moves: np.ndarray, first: np.ndarray, i: int, j: int) -> tuple[np.ndarray, np.ndarray]:
    steps = [(i, j)]
    while i or j:
        move = moves[i, j - first[i]]
        i -= int(move != _ALONG)
        j -= int(move != _DOWN)
        steps.append((i, j))
    rows, columns = np.array(steps[::-1]).T
    return rows, columns


def dtw_log_mel(measured: np.ndarray, reference: np.ndarray, sample_rate_hz: int) -> float:
    """Mean absolute difference of log-mels along the best path, nepers. [samples] each; inf where not finite."""
    if not finite(measured, reference):
        return float("inf")
    made, exact = mel_frames(measured, sample_rate_hz), mel_frames(reference, sample_rate_hz)
    return distance_along(align(made, exact, sample_rate_hz), made, exact)


def distance_along(path: Path, measured: np.ndarray, reference: np.ndarray) -> float:
    """The same, of log-mels [frames, MELS] that are aligned already."""
    return float(np.abs(measured[path.measured] - reference[path.reference]).mean())


def si_sdr_db(measured: np.ndarray, reference: np.ndarray, sample_rate_hz: int) -> float:
    """Scale-invariant signal-to-distortion ratio (Le Roux et al. 2019), of signals without their means.

    Where lengths differ, the measured one is laid on the reference's time axis first (`warped`). inf where equal but
    for a factor, -inf where samples are not finite or only one of the two is silent or empty.
    """
    if not finite(measured, reference):
        return float("-inf")
    if not len(measured) or not len(reference):
        return float("inf" if len(measured) == len(reference) else "-inf")
    if len(measured) != len(reference):
        measured = warped(measured, reference, sample_rate_hz)
    made, exact = (x.astype(np.float64) - x.mean(dtype=np.float64) for x in (measured, reference))
    energy = float(exact @ exact)
    target = exact * (float(made @ exact) / energy) if energy else exact
    noise = float(((made - target) ** 2).sum())
    if noise == 0 and (energy == 0) == (not made.any()):
        return float("inf")
    signal = float(target @ target)
    return 10 * float(np.log10(signal / noise)) if signal > 0 and noise > 0 else float("-inf")


def warped(measured: np.ndarray, reference: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """`measured` on the reference's time axis, float64 of its length.

    Windows of 40 ms, four to a window's length, are taken where the path says, each up to a hop earlier or later,
    where it correlates best with the reference, and overlapped (WSOLA, Verhelst and Roelands 1993).
    """
    path = align(mel_frames(measured, sample_rate_hz), mel_frames(reference, sample_rate_hz), sample_rate_hz)
    hop, size = path.hop, 4 * path.hop
    count = -(-len(reference) // hop) + 3
    frames = np.arange(path.reference[-1] + 1)
    there = np.bincount(path.reference, path.measured) / np.bincount(path.reference)
    starts = np.round(np.interp(np.arange(count), frames, there) * hop).astype(int)

    # A frame k begins 3 hops before sample k * hop, in either signal; a further hop of room for the search.
    behind = size + max(0, int(starts.max()) + size + hop - len(measured))
    room = np.pad(measured.astype(np.float64), (size, behind))
    taken = np.lib.stride_tricks.sliding_window_view(room, size + 2 * hop)[starts]
    wanted = np.pad(reference.astype(np.float64), (3 * hop, size))
    exact = np.lib.stride_tricks.sliding_window_view(wanted, size)[: count * hop : hop]
    n_fft = 2 * size
    product = np.fft.rfft(taken, n_fft) * np.conj(np.fft.rfft(exact, n_fft))
    squares = np.cumsum(np.pad(taken**2, ((0, 0), (1, 0))), axis=1)
    energy = squares[:, size:] - squares[:, : 2 * hop + 1]
    match = np.fft.irfft(product, n_fft)[:, : 2 * hop + 1] / np.sqrt(np.maximum(energy, 1e-12))
    shift = match.argmax(1)[:, None] + np.arange(size)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    pieces = np.take_along_axis(taken, shift, 1) * (window / 2)  # four Hann windows sum to 2
    joined = np.zeros((count + 3) * hop)
    for k, piece in enumerate(pieces):
        joined[k * hop : k * hop + size] += piece
    return joined[3 * hop : 3 * hop + len(reference)]
