"""What flags and kinds of passages mean, in words."""

FLAG_MEANINGS = {
    "digits": "most of its activation lies on digits",
    "currency_or_percent": "most of its activation lies on currency and percent signs",
    "punctuation": "most of its activation lies on punctuation",
    "capitalised": "most of its activation lies on capitalised words",
    "early_position": "most of its activation lies on the first tenth of passages",
    "dense": "it fires on more than half of all positions",
    "dead": "it fires on no position",
}
KINDS = {"top": "Strongest passages", "quantile": "Weaker passages", "near_miss": "Near misses: alike, but silent"}
