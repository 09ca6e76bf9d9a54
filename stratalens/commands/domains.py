"""List the built-in domains, or check those of a user: what they have, and whether the two sides compare."""

from pathlib import Path
from typing import NamedTuple

from stratalens.config.domain_file import read_domain
from stratalens.config.validation import make_config
from stratalens.corpus import Corpus, survey
from stratalens.corpus.builtin import BUILT_IN_DOMAINS, built_in_folder
from stratalens.corpus.describe import examine_text
from stratalens.corpus.sense_pairs import load_sense_pairs
from stratalens.files.locations import user_path
from stratalens.labels.concepts.domain_speech import domain_speech_warnings
from stratalens.labels.concepts.lexicon import load_lexicon

MIN_WORDS = 8
"""A document of fewer words is too short, as one of fewer tokens is in a run."""


class DomainFindings(NamedTuple):
    """What is known about a domain without a model."""

    name: str
    description: str
    folder: Path
    documents: tuple[int, int]
    """Domain and general documents that count."""
    kinds: tuple[str, ...]
    """Kinds within which documents are compared; empty where they are compared without kinds."""
    form_auroc: float | None
    """How well the form of a text tells its side, see `corpus.likeness`."""
    concepts: int
    """Concepts of its own lexicon."""
    sense_pairs: int
    """Pairs of sentences in which a word of the domain has another sense."""
    warnings: tuple[str, ...]


def examine_domain(path: str | Path) -> DomainFindings:
    """Read the texts, the lexicon and the sentence pairs of a domain, and look for what would spoil a contrast.

    Args:
        path: its folder or YAML file, or the name of a built-in domain.

    Raises:
        StratalensError: it is no domain, or its texts cannot be used.
    """
    path = built_in_folder(str(path)) if str(path) in BUILT_IN_DOMAINS else path
    described, options = read_domain(path)
    config = make_config(**options)
    corpus = Corpus.of_run(config)
    found = survey(
        corpus,
        too_short=lambda text: len(text.split()) < MIN_WORDS,
        max_documents=None,
        seed=config.seed,
        keep_near_duplicates=False,
    )
    text = examine_text(config, corpus, found)
    lexicon = load_lexicon(config.domain, config.lexicon)
    missing = [] if config.lexicon else ["there is no lexicon: labels are made from phrases and built-in concepts"]
    kinds = found.populations.strata
    return DomainFindings(
        name=config.domain,
        description=described.description,
        folder=user_path(str(path)),
        documents=(found.counts[0].documents, found.counts[1].documents),
        kinds=kinds if len(kinds) > 1 else (),
        form_auroc=None if text.likeness is None else text.likeness.auroc,
        concepts=sum(concept.specific for concept in lexicon.concepts) if config.lexicon else 0,
        sense_pairs=len(load_sense_pairs(config.domain, config.senses)),
        warnings=(*missing, *text.warnings, *domain_speech_warnings(found.samples, lexicon)),
    )
