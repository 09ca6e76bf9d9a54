"""Explanations of flags and headings of example kinds, for readers."""

FLAG_MEANINGS = {
    "digits": "most of its activation is on digits",
    "currency_or_percent": "most of its activation is on currency and percent signs",
    "punctuation": "most of its activation is on punctuation",
    "capitalised": "most of its activation is on capitalised words",
    "early_position": "most of its activation is on the first tenth of passages",
    "dense": "it fires on more than half of all positions",
    "dead": "it fires on no position",
}
KINDS = {
    "top": "Strongest passages",
    "quantile": "Weaker passages",
    "near_miss": "Near misses: similar passages where it does not fire",
}
