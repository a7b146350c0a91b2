"""How far audio lies from other audio. Each formula once, with its source; docs/metrics.md has them all.

Importing this package loads numpy only: scipy.signal alone costs half a second of every start.
"""

from .alignment import dtw_log_mel, si_sdr_db
from .intelligibility import pesq, pesq_installed, stoi
from .joins import join_score
from .metrics import compare, compare_free, overall, spread_ratios
from .pitch import PitchError, f0_hz, pitch_error
from .spectral import FLOOR, HOP, MELS, N_FFT, log_mel, log_mel_l1, mel_filters, mrstft, snr_db
from .stutter import stutter_score

__all__ = [
    "FLOOR",
    "HOP",
    "MELS",
    "N_FFT",
    "PitchError",
    "compare",
    "compare_free",
    "dtw_log_mel",
    "f0_hz",
    "join_score",
    "log_mel",
    "log_mel_l1",
    "mel_filters",
    "mrstft",
    "overall",
    "pesq",
    "pesq_installed",
    "pitch_error",
    "si_sdr_db",
    "snr_db",
    "spread_ratios",
    "stoi",
    "stutter_score",
]
