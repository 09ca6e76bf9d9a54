"""Parts of `scripts/train_saes.py`: recipe, texts, activations, trainer, export, quality, model card."""
