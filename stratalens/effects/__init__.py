"""What the model loses without a feature: latents are removed from a hookpoint, and the next-token loss is measured.

May import: validation and the rooms that it may import. Main types: Change, LayerEffect, FeatureEffect.
"""
