"""The language of a text, by its most frequent words or by its script."""

import re
import unicodedata
from collections import Counter

MIN_LANGUAGE_WORDS = 12
"""Fewer words do not tell the language of a text."""
MIN_FUNCTION_WORD_SHARE = 0.1
MIN_KANA_SHARE = 0.1
"""Share of the letters that are kana from which a text of Chinese characters is Japanese."""

_WORDS = {
    "English": "the of and to in is that was for on with as it at by from are be this have not which were been their",
    "German": "der die und das den von zu mit sich des auf für ist im dem nicht ein eine als auch es an werden aus er",
    "French": "le la les des et en un une du que qui dans est pour au aux sur par pas plus ce avec il sont cette ses",
    "Spanish": "el la los las de y en que un una por con para del se al lo como más su es son este pero sus ha",
    "Portuguese": "o os as de e em que um uma não do da no na dos das por com para mais ao foi são seu é se",
    "Italian": "il lo gli di e che un una per con non del della dei delle nel nella sono alla è si dal anche più al le",
    "Dutch": "de het een en van in is dat op te zijn met voor niet aan er om ook als bij door naar uit wordt werd dit",
    "Swedish": "och att det som en på är av för med den till inte om ett har de från var vid kan sig men ska efter",
    "Danish or Norwegian": "og det at som en på er af av for med den til ikke om et har de fra var ved kan seg sig men",
    "Finnish": "ja on ei se että oli hän mutta kun myös ovat ole joka jotka sen mukaan kuin tai niin vain",
    "Polish": "i w na z do nie się jest że to o jak ale po przez dla od oraz był są za które tym który",
    "Czech or Slovak": "a v na se je že s z do o k ve pro za by jsem ale jako po který byl tak jsou podle aby sa",
    "Hungarian": "a az és hogy nem is egy ez volt meg de csak már mint el még vagy ha azt kell",
    "Romanian": "și în de la cu pe nu că este din un o care pentru au mai sau prin fi sunt",
    "Turkish": "ve bir bu için ile da de olarak çok daha en gibi ne ama olan sonra kadar var o her",
    "Indonesian or Malay": "yang dan di dari untuk dengan pada ini itu dalam adalah tidak ke oleh akan sebagai juga",
    "Vietnamese": "và của là có được cho không trong với các một những này đã người khi từ để theo về",
}
FUNCTION_WORDS_OF: dict[str, frozenset[str]] = {
    language: frozenset(words.split()) for language, words in _WORDS.items()
}
"""Language -> frequent words that say nothing about the subject."""
SCRIPTS = {
    "CYRILLIC": "a language in Cyrillic letters",
    "GREEK": "Greek",
    "ARABIC": "a language in Arabic letters",
    "HEBREW": "Hebrew",
    "DEVANAGARI": "a language in Devanagari",
    "BENGALI": "Bengali",
    "TAMIL": "Tamil",
    "THAI": "Thai",
    "HANGUL": "Korean",
    "HIRAGANA": "Japanese",
    "KATAKANA": "Japanese",
    "CJK": "Chinese",
}
"""First word of the names of a script's letters in Unicode -> how texts in it are called."""
LETTERS_OF = {
    "German": "äöüß",
    "French": "àâæçéèêëîïôœùûüÿ",
    "Spanish": "áéíóúüñªº",
    "Portuguese": "áâãàçéêíóôõúüªº",
    "Italian": "àèéìòù",
    "Dutch": "éèëïöü",
    "Swedish": "åäöé",
    "Danish or Norwegian": "æøåé",
    "Finnish": "äöå",
    "Polish": "ąćęłńóśźż",
    "Czech or Slovak": "áäčďéěíĺľňóôŕřšťúůýž",
    "Hungarian": "áéíóöőúüű",
    "Romanian": "ăâîșşțţ",
    "Turkish": "çğıİöşüâî",
}
"""Language -> its letters beyond ASCII. English has none, and takes those of the names and words that it borrows."""
_WORD = re.compile(r"[^\W\d_]+")


def language_of(text: str) -> str:
    """Language of a text by its function words, or by its script; empty if it is not clear."""
    letters = Counter(_script(character) for character in text[:400] if character.isalpha())
    script = letters.most_common(1)[0][0] if letters else ""
    if script == "CJK" and letters["HIRAGANA"] + letters["KATAKANA"] > MIN_KANA_SHARE * letters.total():
        return SCRIPTS["HIRAGANA"]
    if script != "LATIN":
        return SCRIPTS.get(script, "")
    words = [word.lower() for word in _WORD.findall(text)]
    if len(words) < MIN_LANGUAGE_WORDS:
        return ""
    hits = {language: sum(word in own for word in words) for language, own in FUNCTION_WORDS_OF.items()}
    (best, count), (_, second) = Counter(hits).most_common(2)
    return best if count >= MIN_FUNCTION_WORD_SHARE * len(words) and count > 1.2 * second else ""


def _script(letter: str) -> str:
    """First word of the name of a letter in Unicode, which names its script."""
    return unicodedata.name(letter, "").split(" ")[0].split("-")[0]
