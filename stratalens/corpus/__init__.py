"""Text in, populations of documents out.

A corpus is the files of both sides. A survey reads it once and decides by hashes which rows count and which population
each document belongs to; every later pass reads only the rows that count. Nothing here knows the model: the caller
passes a function that decides which texts are too short. May import: config, files. Main types: Corpus, Survey.
"""

from stratalens.corpus.corpus import Corpus
from stratalens.corpus.populations import Half, Populations, Side
from stratalens.corpus.survey import survey

__all__ = ["Corpus", "Half", "Populations", "Side", "survey"]
