"""Writes sentences/train.txt: English sentences from our own patterns and words, chosen for balanced sounds.

    python -m demo.sentences

Patterns make many candidates; of these the ones are kept, one by one, whose pairs of neighbouring phonemes have
been heard least so far. To these come those of sentences/written.txt, which patterns would not make. What is in
sentences/held_out.txt, which was written by hand too, never comes along.
"""

from __future__ import annotations

import random
import re
import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from jtts_export.runtime.frontend import phonemize

FOLDER = Path(__file__).with_name("sentences")
TRAIN, WRITTEN, HELD_OUT = FOLDER / "train.txt", FOLDER / "written.txt", FOLDER / "held_out.txt"
SEED = 20
KEPT = 2400
CANDIDATES = 14_000

Draw = random.Random


def _words(text: str) -> list[str]:
    return text.replace("\n", "").split("|") if "|" in text else text.split()


WORDS = {name: _words(text) for name, text in tomllib.loads((FOLDER / "words.toml").read_text("utf-8")).items()}


def sentences() -> list[str]:
    """KEPT sentences, the same every time; the written ones and the short ones are among them."""
    draw = Draw(SEED)
    held_out = {_plain(line) for line in read(HELD_OUT)}
    certain = [*WORDS["short"], *read(WRITTEN)]
    texts = dict.fromkeys(certain)
    while len(texts) < CANDIDATES:
        texts[_made(draw)] = None
    candidates = [text for text in texts if _plain(text) not in held_out]
    return _balanced(candidates, len(certain), draw)


def read(path: Path) -> list[str]:
    """A sentence a line."""
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line]


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()


def _balanced(candidates: list[str], certain: int, draw: Draw) -> list[str]:
    """The first `certain` ones, and of the others the best of every few, by how rare its pairs of phonemes are."""
    heard: Counter[str] = Counter()
    kept, rest = candidates[:certain], candidates[certain:]
    pairs = {text: _pairs(phonemize(text)) for text in candidates}
    draw.shuffle(rest)
    for text in kept:
        heard.update(pairs[text])
    few = len(rest) // (KEPT - len(kept))
    for i in range(KEPT - len(kept)):
        group = rest[i * few : (i + 1) * few]
        best = max(group, key=lambda t: sum(1 / (1 + heard[p]) for p in pairs[t]) / len(pairs[t]))
        kept.append(best)
        heard.update(pairs[best])
    return kept


def _pairs(phonemes: str) -> list[str]:
    sounds = re.sub("[ˈˌ]", "", phonemes)
    return [sounds[i : i + 2] for i in range(len(sounds) - 1)] or [sounds]


def _made(draw: Draw) -> str:
    text = _filled(draw.choices([p for p, _ in PATTERNS], [w for _, w in PATTERNS])[0], draw)
    text = re.sub(r"\b([Aa]) (?=[aeio])", r"\1n ", text)
    return text[0].upper() + text[1:]


def _filled(pattern: str, draw: Draw) -> str:
    """Each {name}, from left to right: what _PARTS makes, a whole number from A to B for {A-B}, or one of WORDS."""

    def part(match: re.Match[str]) -> str:
        name = match[1]
        if name in _PARTS:
            return _PARTS[name](draw)
        if name[0].isdecimal():
            low, _, high = name.partition("-")
            return str(draw.randint(int(low), int(high)))
        return draw.choice(WORDS[name])

    return re.sub(r"{([\w-]+)}", part, pattern)


def _noun(draw: Draw) -> str:
    return draw.choice(draw.choice((WORDS["people"], WORDS["animals"], WORDS["things"], WORDS["things"])))


def _the(draw: Draw, noun: str | None = None) -> str:
    noun = noun or _noun(draw)
    owner = draw.choice([*WORDS["owners"], f"{draw.choice(WORDS['names'])}'s"])
    one, two = draw.choice(WORDS["adjectives"]), ", ".join(draw.sample(WORDS["adjectives"], 2))
    adjectives = draw.choices(["", one, two], [5, 5, 1])[0]
    return " ".join(filter(None, [owner, adjectives, noun]))


def _who(draw: Draw) -> str:
    patterns = ("{title}{surnames}", "{pronouns}", "{names} and {names}")
    beings = [_the(draw, draw.choice(WORDS["people"])), _the(draw, draw.choice(WORDS["animals"]))]
    return draw.choice([*beings, draw.choice(WORDS["names"]), *(_filled(p, draw) for p in patterns)])


def _clause(draw: Draw) -> str:
    if draw.random() < 0.6:
        return _filled("{who} {did} {the}", draw)
    who, went = _who(draw), draw.choice(WORDS["went"])
    where = [draw.choice(WORDS["how"]), _filled("{place}", draw), draw.choice(WORDS["when"])]
    return f"{who} {went} {draw.choice(where)}"


def _number(draw: Draw) -> str:
    patterns = ("{small_numbers}", "{21-99}", "{100-999}", "{1-99},{thousandths}", "{0-99}.{1-99}", "{1700-2030}")
    return draw.choice([_filled(pattern, draw) for pattern in patterns])


def _invented(draw: Draw) -> str:
    def syllable() -> str:
        return _filled("{onsets}{nuclei}", draw) + draw.choice(["", draw.choice(WORDS["codas"])])

    return "".join(syllable() for _ in range(draw.randint(1, 2))).capitalize()


def _question(draw: Draw) -> str:
    return draw.choice(["who", "what", f"which {_noun(draw)}"])


_PARTS: dict[str, Callable[[Draw], str]] = {
    "noun": _noun,
    "the": _the,
    "the_person": lambda draw: _the(draw, draw.choice(WORDS["people"])),
    "the_invented": lambda draw: _the(draw, _invented(draw).lower()),
    "who": _who,
    "clause": _clause,
    "place": lambda draw: f"{draw.choice(WORDS['where'])} {_the(draw, draw.choice(WORDS['places']))}",
    "title": lambda draw: draw.choice(["Mr. ", "Mrs. ", "Dr. ", ""]),
    "number": _number,
    "thousandths": lambda draw: f"{draw.randint(0, 999):03}",
    "cents": lambda draw: f"{draw.randint(1, 99):02}",
    "invented": _invented,
    "question": _question,
    "end": lambda draw: draw.choice(".?!"),
}
PATTERNS: list[tuple[str, float]] = [
    ("{clause}.", 6),
    ("{clause} {place}.", 4),
    ("{when}, {clause}.", 4),
    ("{clause} {when}!", 2),
    ("{clause}, {and} {clause}.", 5),
    ("{if} {clause}, {clause}.", 3),
    ("did {the_person} really {like} {the}?", 3),
    ("{question} {did} {the} {when}?", 2),
    ("{why} {should} {who} {find} {the}?", 3),
    ("{never} {open} {the} {place}.", 3),
    ("there {were} {2-99} {adjectives} {plurals} {place}.", 3),
    ("{who} {paid} {number} {when}.", 3),
    ("{the} costs ${1-99}.{cents} {place}.", 1),
    ("the {train} to {towns} leaves at {1-12}:{10-59} {at}", 2),
    ("chapter {small_numbers}: {the} of {towns}.", 1),
    ("“{clause},” {said} {who}.", 2),
    ("{who} {said}: “{clause}{end}”", 2),
    ("{clause}; {clause}.", 1.5),
    ("{clause} — {clause}.", 1),
    ("{clause} ({how})…", 0.7),
    ("{names}, {the}, and {the} {seem} {adjectives}.", 2),
    ("{the} is {adjectives} and {adjectives}, isn't it?", 1.5),
    ("{invented} {invented} {did} {the} in {invented}.", 1),
    ("{the_invented} is {quite} {adjectives}.", 1.5),
    ("{adjectives} {noun}, {adjectives} {noun}, and {adjectives} {noun}.", 2),
    ("{who} {can} {remember} {the} {how}.", 3),
    ("{the}.", 1),
    ("{names}!", 0.1),
]


def main() -> None:
    TRAIN.write_text("\n".join(sentences()) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
