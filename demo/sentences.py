"""Writes sentences/train.txt: English sentences from our own patterns and words, chosen for balanced sounds.

    python -m demo.sentences

Patterns make many candidates; of these the ones are kept, one by one, whose pairs of neighbouring phonemes have
been heard least so far. To these come those of sentences/written.txt, which patterns would not make. What is in
sentences/held_out.txt, which was written by hand too, never comes along.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from jtts_export.runtime.frontend import phonemize

FOLDER = Path(__file__).with_name("sentences")
TRAIN, WRITTEN, HELD_OUT = FOLDER / "train.txt", FOLDER / "written.txt", FOLDER / "held_out.txt"
SEED = 20
KEPT = 2400
CANDIDATES = 14_000

PEOPLE = """teacher farmer doctor lawyer baker sailor painter singer neighbor stranger captain judge nurse driver
writer builder hunter pilot soldier child cousin uncle aunt brother sister mother father grandson visitor butcher
engineer chemist gardener musician customer officer mayor student professor plumber shepherd juggler thief king queen
princess boxer dancer jeweler tailor librarian mechanic photographer journalist architect carpenter waitress giant
youth toddler monk wizard clown spy scholar goalkeeper employee tourist voyager""".split()
ANIMALS = """dog cat horse cow goose fox wolf owl rabbit donkey tiger lion camel zebra mouse goat sheep hawk eagle
sparrow turtle lizard beetle spider butterfly whale dolphin oyster lobster monkey giraffe hyena kitten puppy pigeon
ox moth frog badger otter hedgehog""".split()
THINGS = """book table chair window door bottle kettle spoon knife basket blanket candle mirror clock watch camera
engine bicycle tractor wagon anchor rope ladder hammer nail shovel bucket barrel box bag jacket coat shirt shoe boot
glove hat scarf ring necklace coin wallet letter envelope stamp map picture statue violin guitar trumpet drum piano
flute whistle toy ball kite balloon puzzle lamp lantern torch stove oven fridge pillow mattress carpet curtain vase
flower rose tulip orchid leaf branch tree bush apple orange lemon peach cherry grape melon onion carrot potato tomato
pumpkin bread butter cheese sausage soup salad cake pie biscuit sugar honey jam coffee tea milk juice water oil
vinegar pepper cinnamon chocolate vanilla yoghurt stone brick plank beam pipe wire cable switch button handle hinge
lock key chain wheel tire axle pump valve filter machine robot computer keyboard screen printer battery antenna
telescope microscope thermometer compass measure treasure garage collage beige azure mirage jewel voyage toilet
coin poison soil boy joint cloud tower flower shower mouth house thumb thread throat thorn path bath tooth cloth
feather leather weather brother rhythm judge bridge edge orange village garbage cabbage luggage church chalk cheek
lunch bench peach match wishes shell brush fish shadow sugar ocean nation station wing song string thing finger
tongue jungle yacht yellow onion music cube tube newspaper view review fuel huge beauty pure cure tour jury
wood wool foot cook hook bull push pudding bush queen quilt quarter square twin twelve swing sweater wheat whisper
axe box mixture text sixth sphere splash spring stripe screw shriek throne shrimp glimpse strength length month
depth width breadth fifth eighth asthma rifle bottle cattle needle noodle circle uncle angle jungle people couple
trouble double table cable fable temple simple example camel tunnel channel panel funnel barrel quarrel squirrel""".split()
PLACES = """market harbor station kitchen garden forest valley mountain river island desert village city castle
tower bridge church museum library theater hospital school college office factory warehouse garage cellar attic
balcony stadium airport beach cave swamp meadow orchard vineyard park square tunnel laboratory studio courthouse
bakery pharmacy zoo cabin tent lighthouse farmhouse shipyard graveyard playground corridor cathedral""".split()
NAMES = """Anna Ben Chloe Dave Ethan Fiona George Hannah Ivan Joyce Keith Louise Martha Nigel Olivia Paul Quincy Ruth
Sean Thelma Ursula Vivian Walter Xavier Yvonne Zach Theodore Judith Roy Heather Hugh Beth Joan Mary Charles Sarah
Thomas Julia Oscar Emily Jacob Sophie Gareth Ingrid Boris Shirley Joshua Yolanda""".split()
SURNAMES = """Smith Jones Vaughan Thatcher Youngblood Whitaker Jameson Boyle Hughes Zimmerman Fitzgerald Kowalski
Chandler Underwood Morgan Sinclair Pritchard Goldberg Ashworth Quigley Doyle Newton Bradshaw Wexler Lovejoy""".split()
TOWNS = """Boston Chicago Dublin Vienna Cairo Tokyo Sydney Denver Oslo Madrid Geneva Houston Quebec Athens Warsaw
Zurich Seville Bangkok Nairobi Liverpool Edinburgh Phoenix Brussels Shanghai Plymouth""".split()
ADJECTIVES = """red blue green yellow purple orange white black grey brown pink golden silver dark bright pale huge
tiny small large long short tall narrow wide thick thin heavy light soft hard smooth rough sharp dull clean dirty dry
wet hot cold warm cool fresh stale sweet sour bitter salty spicy loud quiet quick slow early late old new young
ancient modern cheap expensive rich poor happy sad angry calm brave shy proud humble clever foolish kind cruel gentle
strange familiar famous unknown empty full open closed broken perfect beautiful ugly lovely horrible wonderful awful
careful careless dangerous safe simple complicated ordinary special curious lazy busy hungry thirsty tired sleepy
healthy sick strong weak loyal honest noisy cheerful gloomy mysterious ridiculous enormous precious vicious usual
casual visual unusual royal voiced annoyed spoiled joyful pointless smoky misty foggy sunny windy stormy icy
wooden woollen rusty dusty crooked twisted polished frozen melted hollow shallow mellow useful useless youthful
truthful thoughtful earthly northern southern eastern western thirsty thorough third fourth fifth sixth""".split()
DID = """carried dropped found lost bought sold painted repaired borrowed stole hid watched followed pushed pulled
lifted threw caught kicked touched noticed admired measured weighed opened closed cleaned washed polished folded
wrapped packed shipped ordered chose refused accepted described drew photographed sketched mentioned recognized
remembered forgot ignored examined inspected tested fixed broke crushed smashed bent twisted shook stirred mixed
tasted smelled swallowed chewed boiled baked fried peeled sliced chopped covered uncovered buried dug discovered
destroyed saved rescued protected enjoyed avoided employed annoyed joined pointed at looked for asked about laughed at
talked about listened to voted for argued over judged changed arranged challenged exchanged urged banished treasured
thanked bathed soothed breathed on breathed thawed""".replace("at looked", "at,looked").split()
DID = [d for d in DID if d not in {"at", "for", "about", "over", "on", "to", "at,looked"}]
WENT = """walked ran jumped danced slept waited laughed cried sang whistled shouted whispered sneezed coughed
stumbled fell climbed crawled swam drifted floated vanished appeared arrived departed returned hesitated shivered
trembled smiled frowned yawned nodded shrugged rested argued joked studied worked played rejoiced voyaged""".split()
HOW = """slowly quickly quietly loudly carefully carelessly gently roughly happily sadly angrily calmly bravely
shyly proudly suddenly gradually finally usually rarely often seldom twice again together alone nervously cheerfully
thoughtfully smoothly awkwardly clumsily secretly openly honestly obviously apparently unfortunately""".split()
WHERE = """in under behind beside near beyond above below across inside outside past through toward around against
opposite""".split()
WHEN = """yesterday today tonight tomorrow morning|this morning|last night|last Thursday|on Monday|on Tuesday|
on Wednesday|every Friday|in January|in February|in August|in October|before dawn|after lunch|at noon|at midnight|
during the war|two years ago|a week later|next month|at the weekend|in the nineties|just now|once upon a time|
for the third time|by accident|on purpose|in silence|without warning|as usual|with great pleasure"""
WHENS = [w.strip() for w in WHEN.replace("\n", " ").replace("yesterday today tonight tomorrow morning", "yesterday|today|tonight").split("|")]
SAY = """said asked whispered shouted answered replied admitted explained insisted promised complained""".split()
SHORT = """Yes.|No.|Maybe.|Why not?|Of course!|Never mind.|Good morning!|Good night.|Thank you.|Thanks a lot!|
You're welcome.|Excuse me?|Come in.|Go away!|Sit down.|Stand up!|Hurry!|Wait here.|Look out!|Who's there?|Where are we?|
What time is it?|How are you?|I'm fine.|See you soon.|Well done!|Not yet.|Right now.|As you wish.|Don't panic.|
That's all.|That's enough!|Let's go.|Let me see.|I doubt it.|I think so.|I don't know.|So what?|Oh boy!|Enjoy!|
Hello.|Hi there!|Goodbye.|Please.|Sorry.|Listen.|Really?|Absolutely.|Exactly.|Certainly not.|Be careful!|Stop it!"""
SHORTS = [s.strip() for s in SHORT.replace("\n", "").split("|")]
TEENS = "0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20".split()
ONSETS = """b br bl d dr f fl fr g gl gr h j k kl kr kw l m n p pl pr r s sk sl sm sn sp st str sw t th thr tr v w y z
sh shr ch tw sp spr spl""".split()
NUCLEI = "a e i o u ee ea oo ou oi oy ai ay ow au aw igh ar er ir or ur oa".split()
CODAS = "b d f g k l m n p r s t v x z sh ch th ng nk nd nt st sk lt mp ft ck ll ss dge rn rd rk lm lk".split()

Draw = random.Random


def sentences() -> list[str]:
    """KEPT sentences, the same every time; the written ones and the short ones are among them."""
    draw = Draw(SEED)
    held_out = {_plain(line) for line in read(HELD_OUT)}
    certain = [*SHORTS, *read(WRITTEN)]
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
    """The first `certain` ones, and of the others, in turn, the best of a few by how rare its pairs of phonemes are so far."""
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
    text = draw.choices([p for p, _ in PATTERNS], [w for _, w in PATTERNS])[0](draw)
    text = re.sub(r"\b([Aa]) (?=[aeio])", r"\1n ", text)
    return text[0].upper() + text[1:]


def _noun(draw: Draw) -> str:
    return draw.choice(draw.choice((PEOPLE, ANIMALS, THINGS, THINGS)))


def _the(draw: Draw, noun: str | None = None) -> str:
    noun = noun or _noun(draw)
    owner = draw.choice(["the", "the", "a", "my", "your", "his", "her", "our", "their", "this", "that", "every", f"{draw.choice(NAMES)}'s"])
    adjectives = draw.choices(["", draw.choice(ADJECTIVES), ", ".join(draw.sample(ADJECTIVES, 2))], [5, 5, 1])[0]
    return " ".join(filter(None, [owner, adjectives, noun]))


def _who(draw: Draw) -> str:
    return draw.choice(
        [
            _the(draw, draw.choice(PEOPLE)),
            _the(draw, draw.choice(ANIMALS)),
            draw.choice(NAMES),
            draw.choice(["Mr. ", "Mrs. ", "Dr. ", ""]) + draw.choice(SURNAMES),
            draw.choice(["I", "you", "she", "he", "we", "they", "nobody", "everyone", "somebody"]),
            f"{draw.choice(NAMES)} and {draw.choice(NAMES)}",
        ]
    )


def _place(draw: Draw) -> str:
    return f"{draw.choice(WHERE)} {_the(draw, draw.choice(PLACES))}"


def _clause(draw: Draw) -> str:
    if draw.random() < 0.6:
        return f"{_who(draw)} {draw.choice(DID)} {_the(draw)}"
    return f"{_who(draw)} {draw.choice(WENT)} {draw.choice([draw.choice(HOW), _place(draw), draw.choice(WHENS)])}"


def _number(draw: Draw) -> str:
    return draw.choice(
        [draw.choice(TEENS), str(draw.randint(21, 99)), str(draw.randint(100, 999)), f"{draw.randint(1, 99)},{draw.randint(0, 999):03}"]
        + [f"{draw.randint(0, 99)}.{draw.randint(1, 99)}", str(draw.randint(1700, 2030))]
    )


def _invented(draw: Draw) -> str:
    parts = [draw.choice(ONSETS) + draw.choice(NUCLEI) + draw.choice(["", draw.choice(CODAS)]) for _ in range(draw.randint(1, 2))]
    return "".join(parts).capitalize()


def _many(draw: Draw) -> str:
    return f"{draw.randint(2, 99)} {draw.choice(ADJECTIVES)} {draw.choice(['apples', 'horses', 'boxes', 'watches', 'knives', 'sheep', 'oranges', 'miles', 'voices', 'months', 'thieves', 'brushes', 'buses', 'bushes', 'houses', 'chairs', 'books', 'oxen'])}"


PATTERNS: list[tuple[Callable[[Draw], str], float]] = [
    (lambda d: f"{_clause(d)}.", 6),
    (lambda d: f"{_clause(d)} {_place(d)}.", 4),
    (lambda d: f"{d.choice(WHENS)}, {_clause(d)}.", 4),
    (lambda d: f"{_clause(d)} {d.choice(WHENS)}!", 2),
    (lambda d: f"{_clause(d)}, {d.choice(['and', 'but', 'so', 'yet', 'because', 'although', 'while'])} {_clause(d)}.", 5),
    (lambda d: f"{d.choice(['when', 'if', 'after', 'before', 'unless', 'since'])} {_clause(d)}, {_clause(d)}.", 3),
    (lambda d: f"did {_the(d, d.choice(PEOPLE))} really {d.choice(['like', 'want', 'need', 'choose', 'use', 'measure', 'watch', 'believe in'])} {_the(d)}?", 3),
    (lambda d: f"{d.choice(['who', 'what', 'which ' + _noun(d)])} {d.choice(DID)} {_the(d)} {d.choice(WHENS)}?", 2),
    (lambda d: f"{d.choice(['why', 'how', 'where', 'when'])} {d.choice(['should', 'could', 'would', 'does', 'did'])} {_who(d)} {d.choice(['find', 'hide', 'join', 'choose', 'fix', 'sell', 'cook', 'push'])} {_the(d)}?", 3),
    (lambda d: f"{d.choice(['please', 'never', 'always', 'do not'])} {d.choice(['open', 'close', 'touch', 'move', 'clean', 'join', 'destroy', 'measure', 'push', 'pull', 'leave'])} {_the(d)} {_place(d)}.", 3),
    (lambda d: f"there {d.choice(['were', 'are', 'will be'])} {_many(d)} {_place(d)}.", 3),
    (lambda d: f"{_who(d)} {d.choice(['paid', 'counted', 'wrote down', 'needed', 'saw'])} {_number(d)} {d.choice(WHENS)}.", 3),
    (lambda d: f"{_the(d)} costs ${d.randint(1, 99)}.{d.randint(1, 99):02} {_place(d)}.", 1),
    (lambda d: f"the {d.choice(['train', 'bus', 'flight', 'ferry'])} to {d.choice(TOWNS)} leaves at {d.randint(1, 12)}:{d.randint(10, 59)} {d.choice(['a.m.', 'p.m.', 'sharp.', 'tonight.'])}", 2),
    (lambda d: f"chapter {d.choice(TEENS)}: {_the(d)} of {d.choice(TOWNS)}.", 1),
    (lambda d: f"“{_clause(d)},” {d.choice(SAY)} {_who(d)}.", 2),
    (lambda d: f"{_who(d)} {d.choice(SAY)}: “{_clause(d)}{d.choice('.?!')}”", 2),
    (lambda d: f"{_clause(d)}; {_clause(d)}.", 1.5),
    (lambda d: f"{_clause(d)} — {_clause(d)}.", 1),
    (lambda d: f"{_clause(d)} ({d.choice(HOW)})…", 0.7),
    (lambda d: f"{d.choice(NAMES)}, {_the(d)}, and {_the(d)} {d.choice(['are', 'were', 'seem', 'looked'])} {d.choice(ADJECTIVES)}.", 2),
    (lambda d: f"{_the(d)} is {d.choice(ADJECTIVES)} and {d.choice(ADJECTIVES)}, isn't it?", 1.5),
    (lambda d: f"{_invented(d)} {_invented(d)} {d.choice(DID)} {_the(d)} in {_invented(d)}.", 1),
    (lambda d: f"{_the(d, _invented(d).lower())} is {d.choice(['quite', 'more', 'less', 'so'])} {d.choice(ADJECTIVES)}.", 1.5),
    (lambda d: f"{d.choice(ADJECTIVES)} {_noun(d)}, {d.choice(ADJECTIVES)} {_noun(d)}, and {d.choice(ADJECTIVES)} {_noun(d)}.", 2),
    (lambda d: f"{_who(d)} {d.choice(['can', 'will', 'must', 'might', 'won' + chr(39) + 't', 'couldn' + chr(39) + 't'])} {d.choice(['remember', 'enjoy', 'forgive', 'choose', 'bathe', 'teach', 'judge', 'surprise', 'avoid', 'unhook'])} {_the(d)} {d.choice(HOW)}.", 3),
    (lambda d: f"{_the(d)}.", 1),
    (lambda d: f"{d.choice(NAMES)}!", 0.1),
]


def main() -> None:
    TRAIN.write_text("\n".join(sentences()) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
