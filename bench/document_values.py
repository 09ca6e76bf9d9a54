"""What the product ranks from, made of the values of documents as if each of them were one passage of one position."""

import numpy as np
from jaxtyping import Float, Int

from stratalens.corpus import Populations
from stratalens.corpus.sources import NO_SOURCES
from stratalens.harvest import FeatureStats
from stratalens.harvest.state.document_sample import DocumentSample, SampledPassages
from stratalens.harvest.state.passage_values import PassageValues
from stratalens.models.token_classes import TOKEN_CLASSES
from stratalens.ranking.estimates import RankingInput


def ranking_input(
    values: Float[np.ndarray, "document latent"],
    population: Int[np.ndarray, "document"],
    populations: Populations,
    decoder_norms: Float[np.ndarray, "latent"],
) -> RankingInput:
    """The input of the ranking; norms of hookpoints are 1.

    Args:
        values: of the documents.
        population: number of each document's population.
        populations: all of them.
        decoder_norms: of the latents.
    """
    passage, latent = np.nonzero(values)
    mean = values[passage, latent].astype(np.float32)
    documents, width = values.shape
    ones = np.ones(documents, np.int64)
    passages = PassageValues(
        population=population,
        tokens=ones,
        countable_positions=ones,
        kept_positions=ones,
        norm_sum=ones.astype(np.float32),
        residual_mean=np.zeros((documents, 1), np.float32),
        passage=passage,
        latent=latent,
        mean=mean,
        maximum=mean,
        positions_fired=np.ones(len(passage), np.int64),
        class_mass=np.zeros((len(passage), len(TOKEN_CLASSES)), np.float32),
        early_mass=np.zeros(len(passage), np.float32),
    )
    sampled = SampledPassages(np.arange(documents).astype(np.uint64), np.ones(documents, bool))
    matrix = DocumentSample.of(passages, sampled).matrix(width)
    return RankingInput(FeatureStats.of(passages, len(populations)), matrix, decoder_norms, populations, NO_SOURCES)
