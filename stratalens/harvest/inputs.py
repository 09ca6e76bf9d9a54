"""What is known of a run before its model is loaded."""

from dataclasses import dataclass

from stratalens.corpus.corpus import Corpus
from stratalens.corpus.survey import Survey
from stratalens.models.source import ModelSource
from stratalens.models.tokens import PassageCutter
from stratalens.saes.sae import SaeFile


@dataclass(frozen=True)
class Prepared:
    """Model, SAEs and text of a run, found and checked as far as that goes without the model."""

    source: ModelSource
    saes: dict[int, SaeFile]
    corpus: Corpus
    survey: Survey
    cutter: PassageCutter
