"""Built-in utterances with Kokoro's phonemes, so that calibrating and validating need no phonemizer.

The phonemes are runtime/frontend.py's of the text; the three sets share no sentence. Those to validate with are short
and long, have numbers, names and marks, and speeds that are no integers; "Smoky fires..." and "Thieves..." are of the
IEEE's balanced lists (Recommended Practice for Speech Quality Measurements, 1969). SPOKEN is speecht5_sentences.LONG.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sentence:
    """A text, the phonemes it was made into, and how fast it is spoken."""

    text: str
    phonemes: str
    speed: float = 1.0


CALIBRATION = (
    Sentence("The boat drifted slowly past the old lighthouse.", "ðə bˈOt dɹˈɪftᵻd slˈOli pˈæst ðɪ ˈOld lˈIthWs."),
    Sentence("Please leave your shoes by the door.", "plˈiz lˈiv jʊɹ ʃˈuz bI ðə dˈɔɹ."),
    Sentence("Why would anyone paint a garage purple?", "wˌI wʊd ˈɛnɪwˌʌn pˈAnt ə ɡəɹɹˈɑʒ pˈɜɹpᵊl?"),
    Sentence("Seven grey geese crossed the frozen river.", "sˈɛvən ɡɹˈA ɡˈis kɹˈɔst ðə fɹˈOzən ɹˈɪvəɹ."),
    Sentence("Call me back when you get the chance!", "kˈɔl mˌi bˈæk wɛn ju ɡɛt ðə ʧˈæns!"),
    Sentence("Fresh bread, warm butter, and a quiet morning.", "fɹˈɛʃ bɹˈɛd, wˈɔɹm bˈʌTəɹ, ænd ə kwˈIət mˈɔɹnɪŋ."),
    Sentence("She measured the voltage twice, then shrugged.", "ʃi mˈɛʒəɹd ðə vˈOltɪʤ twˈIs, ðˈɛn ʃɹˈʌɡd."),
    Sentence("It rained on Thursday.", "ɪt ɹˈAnd ˌɔn θˈɜɹzdA."),
)
SEARCH = (
    Sentence("The museum opens at nine on weekdays.", "ðə mjuzˈiəm ˈOpənz æt nˈIn ˌɔn wˈikdAz."),
    Sentence("Nobody thought the joke was funny, did they?", "nˈObɑdi θˈɔt ðə ʤˈOk wʌz fˈʌni, dˈɪd ðA?", speed=0.8),
)
VALIDATION = (
    Sentence("Not today, Anna!", "nˌɑt tədˈA, ˈænə!"),
    Sentence("Smoky fires lack flame and heat.", "smˈOki fˈIəɹz lˈæk flˈAm ænd hˈit.", speed=1.25),
    Sentence("Thieves who rob friends deserve jail.", "θˈivz hˌu ɹˈɑb fɹˈɛndz dɪzˈɜɹv ʤˈAl.", speed=0.8),
    Sentence("Bus 42 costs $3.75.", "bˈʌs fˈɔɹTi tˈu kˈɔsts θɹˈi dˈɑləɹz ænd sˈɛvənti fˈIv sˈɛnts.", speed=1.5),
    Sentence("“Mr. Nguyen, open up; it's Zoë…” (Who?)", "“mˈɪstəɹ nˈujɛn, ˈOpən ˈʌp; ɪts zˈOi…” (hˈu?)"),
)
SPOKEN = (
    "wˌɛn ðə stˈɔɹm fˈInᵊli pˈæst, ðə ʧˈɪldɹən ɹˈæn dˌWn tə ðə bˈiʧ tə sˈi wʌt ðə sˈi hæd lˈɛft bᵻhˈInd: "
    "dɹˈɪftwʊd, tˈæŋɡᵊld ɹˈOp, ænd wˈʌn ɪnˈɔɹməs ɡlˈæs flˈOt, ɡɹˈin æz ə bˈɑTᵊl ænd hˈOl, wˌɪʧ ðɛɹ "
    "ɡɹˈændfɑðəɹ sˈɛd hæd kɹˈɔst ən ˈOʃən."
)
