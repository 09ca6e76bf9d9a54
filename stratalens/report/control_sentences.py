"""What the controls of a run say, in plain words, for the page and the terminal."""

from collections.abc import Sequence

from stratalens.report.controls_record import ChanceRateRecord, ControlsRecord, HeldOutAurocRecord

PROBES = (
    "Difference of means and logistic probe read the mean residual vector of each document: what the hookpoint holds, "
    "whether the SAE found it or not. The probes on features read those with the highest AUROC on the discovery half. "
    "All are fitted on the discovery half and measured on the confirmation half."
)


RANDOM = (
    "Random directions: an SAE of the same shape, whose latents are directions drawn at random, read the same text; "
    "the best of its latents were selected and tested as the reported features were. What they reach needs no learned "
    "feature."
)


def control_sentences(controls: ControlsRecord) -> list[str]:
    """A sentence for each control."""
    sentences = [_null(controls.null_contrast), _shuffled(controls.shuffled_labels), PROBES, _words(controls.words)]
    return [*sentences, RANDOM] if controls.random_keys else sentences


def controls_line(controls: ControlsRecord, ordered: Sequence[str]) -> str:
    """The controls in one line; of probes only those of the best layer.

    Args:
        controls: of the run.
        ordered: names of the hookpoints, best first.
    """
    best = ordered[0]
    own = controls.hookpoints[best]
    parts = []
    if (null := controls.null_contrast) is not None:
        parts.append(f"by chance a discovery in {_rate(null)} of splits of general text")
    if (shuffled := controls.shuffled_labels) is not None:
        parts.append(f"in {_rate(shuffled)} with shuffled sides")
    probes = [("difference of means", own.mean_difference), ("logistic probe", own.logistic_probe)]
    probes += [
        (f"best {probe.features} feature{'s'[: probe.features > 1]}", probe.held_out) for probe in own.best_features
    ]
    probes.append(("words", controls.words))
    told = [f"{name} {held_out.auroc:.3f}" for name, held_out in probes if held_out is not None]
    if told:
        parts.append(f"AUROC at layer {best}: {', '.join(told)}")
    if (random := own.random_directions) is not None:
        told = f"{random.confirmed} of {random.features} confirmed, AUROC {random.average_auroc:.3f} on average"
        parts.append(f"the best random directions there: {told}")
    line = f"Controls: {'; '.join(parts)}." if parts else "Controls: too few documents for any."
    return " ".join(filter(None, (line, _lead(controls, ordered))))


def _lead(controls: ControlsRecord, ordered: Sequence[str]) -> str:
    return best_layer_sentence(controls, ordered).replace("Its lead", f"The lead of layer {ordered[0]}")


def best_layer_sentence(controls: ControlsRecord | None, ordered: Sequence[str]) -> str:
    """Whether the best layer differs from the next one by more than noise; empty where this is not known.

    Args:
        controls: of the run, if it has any.
        ordered: names of the hookpoints, best first.
    """
    if controls is None or len(ordered) < 2 or (gap := controls.hookpoints[ordered[1]].behind_best) is None:
        return ""
    next_best = ordered[1]
    if not gap.within_noise:
        return f"Its lead over the next layer, {next_best}, is more than noise."
    others = [str(place) for place in controls.as_good_as_best() if str(place) != next_best]
    more = f"; so is that to {', '.join(others)}" if others else ""
    return f"The difference to the next layer, {next_best}, is within noise{more}."


def _null(rate: ChanceRateRecord | None) -> str:
    if rate is None:
        return "Null contrast: not made, because it needs 40 general documents."
    return (
        f"Null contrast: {rate.repetitions} times the general documents were divided at random, within their kinds, "
        f"in two sides; the run's own selection and tests found a confirmed feature in {_rate(rate)} of these splits. "
        "About 5% are expected."
    )


def _shuffled(rate: ChanceRateRecord | None) -> str:
    if rate is None:
        return "Shuffled sides: not made, because no kind of text has enough documents."
    return (
        f"Shuffled sides: the sides of all documents were shuffled {rate.repetitions} times; the same procedure found "
        f"a confirmed feature in {_rate(rate)} of shuffles. About 5% are expected."
    )


def _words(words: HeldOutAurocRecord | None) -> str:
    if words is None:
        return "Bag of words: not made, because the texts were not at hand or too few."
    return (
        "Bag of words: a logistic regression on the words of the texts alone, without a model, has AUROC "
        f"{words.auroc:.3f} ({words.low:.3f} to {words.high:.3f}) on "
        f"{words.domain_documents + words.general_documents} held-out documents. Features that do no better find "
        "nothing that the words do not tell."
    )


def _rate(rate: ChanceRateRecord) -> str:
    return f"{100 * rate.rate:.1f}% ({100 * rate.low:.1f} to {100 * rate.high:.1f}%)"
