"""Sparse autoencoders: a checkpoint becomes an `Sae` at a hookpoint.

`find_saes` finds the checkpoint of every requested layer, a module of `formats/` reads it, and the fit check tests
whether it belongs to that layer of that model. May import: models, config, files. Main types: Sae, LayerProbe.
"""

from stratalens.saes.sae import Sae
from stratalens.saes.source import find_saes

__all__ = ["Sae", "find_saes"]
