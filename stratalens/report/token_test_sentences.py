"""The token test of one feature in words, for the card and for `show`."""

import math
from collections.abc import Mapping

from stratalens.validation.token_verdicts import TokenTestScore, Verdict

VERDICT_MEANINGS: Mapping[Verdict, str] = {
    "token-driven": "the tokens on which it fires switch it on in unrelated text as well",
    "mostly tokens": "the tokens on which it fires switch it on in unrelated text in part",
    "context": "the tokens on which it fires do not switch it on in unrelated text, but its own passages do",
    "undecided": "neither that its tokens suffice nor that they do not is shown",
}
NOT_TESTED = "Not tested with tokens alone: it was reported after the token test; run stratalens token_test RESULT_DIR"


def token_test_lines(score: TokenTestScore) -> list[str]:
    """What the token test says of a feature: the verdict first, then what was pasted, then the reverse measures."""
    low, high = _number(score.d_low), _number(score.d_high)
    lines = [
        f"Token test: {score.verdict}: {VERDICT_MEANINGS[score.verdict]} "
        f"(d {_number(score.d)}, 95% interval {low} to {high}, q {score.q_value:.2g})",
        f"Pasted: {', '.join(map(repr, score.ngrams)) or 'nothing, as it fires on no passage that chooses'}",
    ]
    if score.own_d is not None and score.own_active_share is not None:
        lines.append(
            f"Its own passages, cut as short: d {_number(score.own_d)}, active on {score.own_active_share:.0%} of them"
        )
    if score.masked_share_kept is not None:
        lines.append(f"With the lexicon's terms masked it keeps {score.masked_share_kept:.0%} of its activation")
    senses = "the domain has no pairs of sentences"
    if score.pairs_fired is not None:
        senses = f"silent on the word in {score.pairs_silent} of {score.pairs_fired} pairs where it fires on it"
    return [*lines, f"Other senses of the domain's words: {senses}"]


def _number(value: float) -> str:
    return "infinite" if math.isinf(value) else f"{value:.2f}"
