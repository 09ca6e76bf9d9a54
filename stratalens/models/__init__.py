"""The language model: found, loaded as deep as needed, its tokens, its hooks.

A name becomes a `ModelSource` without loading weights; `load_model` loads the first blocks, hooks hand on what a module
reads and gives, a `PassageCutter` turns documents into passages of tokens. May import: config, files. Main types:
ModelSource, PassageCutter.
"""

from stratalens.models.loading import load_model
from stratalens.models.source import find_model
from stratalens.models.tokens import PassageCutter

__all__ = ["PassageCutter", "find_model", "load_model"]
