"""Sparse autoencoders: a checkpoint becomes an `Sae` at a hookpoint.

`find_saes` finds the checkpoint of every requested layer and site, a module of `formats/` reads it, and the fit check
tests whether it belongs there. May import: models, config, files. Main types: Sae, Probe, Hookpoint.
"""

from stratalens.hookpoint import Hookpoint
from stratalens.saes.sae import Sae
from stratalens.saes.source import find_saes

__all__ = ["Hookpoint", "Sae", "find_saes"]
