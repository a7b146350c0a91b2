"""What T3 is calibrated, searched and judged with; none occurs twice.

Those to validate with are short and long, and have numbers, names and marks; most are of the IEEE's balanced lists
(Recommended Practice for Speech Quality Measurements, 1969). An exaggeration of 0.7 with a cfg_weight of 0.3, and a
cfg_weight of 0, are what the authors' README advises for dramatic speech and for a voice of another language.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Utterance:
    """A text, for how many speech tokens it is spoken, and how, if not as voice and Sampling have it."""

    text: str
    tokens: int = 20
    exaggeration: float | None = None
    cfg_weight: float | None = None


CALIBRATION = (
    Utterance("The birch canoe slid on the smooth planks, and nobody on the shore said a word."),
    Utterance("Why did she leave at a quarter past nine? Because the last train had already gone!"),
)
SEARCH = (
    Utterance("A large size in stockings is hard to sell."),
    Utterance("Glue the sheet to the dark blue background, please."),
)
VALIDATION = (
    Utterance("Not today, Anna!", 10),
    Utterance("Rice is often served in round bowls.", 20, cfg_weight=0.0),
    Utterance("These days a chicken leg is a rare dish, isn't it?", 20, exaggeration=0.7, cfg_weight=0.3),
    Utterance("Bus 42 leaves at 10:45 and costs $3.75.", 20, cfg_weight=0.8),
    Utterance("Mr. Nguyen met Zoë and O'Neill in Oslo.", 20, exaggeration=0.3),
    Utterance("The juice of lemons makes fine punch; the box was thrown beside the parked truck.", 30),
)
LONG = (
    "It was a quiet evening, and the harbour lay still under a thin cover of mist. Two boats came in late, one with "
    "its lamp out, and the keeper wrote both of them down before he put the kettle on and read the letter again."
)
CHARACTERS_PER_SECOND = 15
