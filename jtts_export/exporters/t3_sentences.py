"""What T3 is calibrated, searched and judged with; none occurs twice."""

CALIBRATION = (
    "The birch canoe slid on the smooth planks, and nobody on the shore said a word.",
    "Why did she leave at a quarter past nine? Because the last train had already gone!",
)
SEARCH = ("A large size in stockings is hard to sell.", "Glue the sheet to the dark blue background, please.")
VALIDATION = (
    "Rice is often served in round bowls.",
    "These days a chicken leg is a rare dish, isn't it?",
    "The juice of lemons makes fine punch; the box was thrown beside the parked truck.",
)
LONG = (
    "It was a quiet evening, and the harbour lay still under a thin cover of mist. Two boats came in late, one with "
    "its lamp out, and the keeper wrote both of them down before he put the kettle on and read the letter again."
)
CHARACTERS_PER_SECOND = 15
