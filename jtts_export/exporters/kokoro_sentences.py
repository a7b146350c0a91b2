"""Built-in utterances as Kokoro's phonemes, so that calibrating and validating need no phonemizer.

Made by runtime/frontend.py from plain English; the three sets share no sentence. SPOKEN is long.
"""

CALIBRATION = (
    "ðə bˈOt dɹˈɪftᵻd slˈOli pˈæst ðɪ ˈOld lˈIthWs.",
    "plˈiz lˈiv jʊɹ ʃˈuz bI ðə dˈɔɹ.",
    "wˌI wʊd ˈɛnɪwˌʌn pˈAnt ə ɡəɹɹˈɑʒ pˈɜɹpᵊl?",
    "sˈɛvən ɡɹˈA ɡˈis kɹˈɔst ðə fɹˈOzən ɹˈɪvəɹ.",
    "kˈɔl mˌi bˈæk wɛn ju ɡɛt ðə ʧˈæns!",
    "fɹˈɛʃ bɹˈɛd, wˈɔɹm bˈʌTəɹ, ænd ə kwˈIət mˈɔɹnɪŋ.",
    "ʃi mˈɛʒəɹd ðə vˈOltɪʤ twˈIs, ðˈɛn ʃɹˈʌɡd.",
    "ɪt ɹˈAnd ˌɔn θˈɜɹzdA.",
)
SEARCH = (
    "ðə mjuzˈiəm ˈOpənz æt nˈIn ˌɔn wˈikdAz.",
    "nˈObɑdi θˈɔt ðə ʤˈOk wʌz fˈʌni, dˈɪd ðA?",
)
VALIDATION = (
    "ə lˈɑɹʤ sˈIz ɪn stˈɑkɪŋz ɪz hˈɑɹd tə sˈɛl.",
    "θˈivz hˌu ɹˈɑb fɹˈɛndz dɪzˈɜɹv ʤˈAl.",
    "hˌW mˈɛni kˈʌps ʌv kˈɔfi dˈɪd ju dɹˈɪŋk tədˈA?",
    "ˈOpən ðə wˈɪndO, plˈiz; ðɪ ˈɛɹ ɪn hˈɪɹ ɪz stˈAl.",
)
SPOKEN = (
    "wˌɛn ðə stˈɔɹm fˈInᵊli pˈæst, ðə ʧˈɪldɹən ɹˈæn dˌWn tə ðə bˈiʧ tə sˈi wʌt ðə sˈi hæd lˈɛft bᵻhˈInd: "
    "dɹˈɪftwʊd, tˈæŋɡᵊld ɹˈOp, ænd wˈʌn ɪnˈɔɹməs ɡlˈæs flˈOt, ɡɹˈin æz ə bˈɑTᵊl ænd hˈOl, wˌɪʧ ðɛɹ "
    "ɡɹˈændfɑðəɹ sˈɛd hæd kɹˈɔst ən ˈOʃən."
)
