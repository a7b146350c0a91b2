"""Built-in utterances; the three sets share no sentence. LONG is cut to the length that is wanted."""

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
    "A large size in stockings is hard to sell.",
    "Thieves who rob friends deserve jail.",
    "How many cups of coffee did you drink today?",
    "Open the window, please; the air in here is stale.",
)
LONG = (
    "When the storm finally passed, the children ran down to the beach to see what the sea had left behind: "
    "driftwood, tangled rope, and one enormous glass float, green as a bottle and whole, which their "
    "grandfather said had crossed an ocean."
)
CHARACTERS_PER_SECOND = 15
