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
TRANSFER_NOTE = (
    "Transfer rank: a feature's place among the live latents of its layer by the lower limits of the AUROC of its "
    "activation and of its firing. Features of that order hold better on other text than those of specialization, "
    "which favours features that fire nearly everywhere; --rank_by transfer selects by it."
)
KINDS = {
    "top": "Strongest passages",
    "quantile": "Weaker passages",
    "near_miss": "Near misses: similar passages where it does not fire",
}
