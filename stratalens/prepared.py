"""What is known of a run before its model is loaded."""

from dataclasses import dataclass

from stratalens.corpora import Corpus
from stratalens.sae import SaeFile
from stratalens.sources import ModelSource
from stratalens.survey import Survey
from stratalens.tokens import PassageCutter


@dataclass(frozen=True)
class Prepared:
    """Model, SAEs and text of a run, found and checked as far as that goes without the model."""

    source: ModelSource
    saes: dict[int, SaeFile]
    corpus: Corpus
    survey: Survey
    cutter: PassageCutter
