"""The language model: finding it, loading its first blocks, hooking its modules, and tokenising text for it.

`find_model` turns a name into a `ModelSource` without loading weights; `load_model` loads the first blocks; hooks pass
on the input and output of a module; a `PassageCutter` cuts documents into passages of tokens. May import: config,
files. Main types: ModelSource, PassageCutter.
"""

from stratalens.models.loading import load_model
from stratalens.models.source import find_model
from stratalens.models.tokens import PassageCutter

__all__ = ["PassageCutter", "find_model", "load_model"]
