"""Everything that a result can say of a latent that it does not report, without model and text."""

import torch

from stratalens.commands.stored_evidence import evidence_of, load_evidence
from stratalens.hookpoint import Hookpoint
from stratalens.labels import FeatureReport, label_features
from stratalens.labels.concepts.lexicon import load_lexicon
from stratalens.labels.labelling import LabelSources
from stratalens.optional_parts import OptionalParts
from stratalens.progress import NoProgress
from stratalens.ranking.rank import reported_features
from stratalens.report.saved import Result


def latent_report(result: Result, hookpoint: Hookpoint, latent: int) -> FeatureReport | None:
    """Label and evidence of any latent, from the codes that the harvest kept.

    Args:
        result: a finished one.
        hookpoint: of the SAE.
        latent: its number.

    Returns:
        The report; None where the result has no examples, or a passage of the evidence was not kept.

    Raises:
        StratalensError: the result is damaged, or its lexicon cannot be read.
    """
    stored = load_evidence(result)
    collected = None if stored is None else evidence_of(result, {hookpoint: [latent]}, stored)
    if collected is None:
        return None
    config, split = result.config, result.record.split
    top = reported_features(
        {hookpoint: result.findings.latents[hookpoint]}, {hookpoint: [latent]}, rank_by=config.rank_by, split=split
    )
    sources = LabelSources(load_lexicon(config.domain, config.lexicon))
    with torch.inference_mode():
        reports = label_features(config, collected, top, sources, OptionalParts(NoProgress()))
    return reports[hookpoint][0]
