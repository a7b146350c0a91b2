"""Built-in utterances; the three sets share no sentence. LONG is cut to the length that is wanted.

Those to validate with are short and long, and have numbers (in words: the authors' vocabulary has no digits), names
and marks; "Smoky fires..." is of the IEEE's balanced lists (Recommended Practice for Speech Quality Measurements,
1969).
"""

from __future__ import annotations

CALIBRATION = (
    "The boat drifted slowly past the old lighthouse.",
    "Please leave your shoes by the door.",
    "Why would anyone paint a garage purple?",
    "Seven grey geese crossed the frozen river.",
)
SEARCH = (
    "The museum opens at nine on weekdays.",
    "Nobody thought the joke was funny, did they?",
)
VALIDATION = (
    "Not today, Anna!",
    "Smoky fires lack flame and heat.",
    "Bus forty-two costs three dollars.",
    "Did Mr. Nguyen meet Zoë in Oslo?",
    "“Open the window, please; the air in here is stale...”",
)
LONG = (
    "When the storm finally passed, the children ran down to the beach to see what the sea had left behind: "
    "driftwood, tangled rope, and one enormous glass float, green as a bottle and whole, which their "
    "grandfather said had crossed an ocean."
)
CHARACTERS_PER_SECOND = 15
