"""Changes of loss and KL divergence equal those of an independent script that hooks the model itself."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from effect_parts import WIDTH, random_sae, random_text
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from stratalens.effects.ablations import LatentSet, RandomReplacement
from stratalens.effects.changes import TOKEN_CLASSES, Change
from stratalens.effects.measure import AblationReader, fold_changes
from stratalens.effects.text import NOT_COUNTED, EffectText
from stratalens.errors import CapacityError, ModelError
from stratalens.hookpoint import Hookpoint
from stratalens.models.batches import BatchRunner
from stratalens.saes.contributions import unit_scale
from stratalens.saes.probe import Probe
from stratalens.saes.sae import Decoder, Sae

SETS = ((3,), (0, 7, 11), tuple(range(40)))
PLACES = ("1", "0", "2_resid_in", "1_mlp", "2_attn", "3_attn_heads")


@pytest.fixture(scope="module")
def model(tiny_model) -> nn.Module:
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval().requires_grad_(False)


def probe_at(name: str, kind: str = "topk", target: str = "", limit: float = float("inf")) -> Probe[Sae]:
    place = Hookpoint.parse(name)
    return Probe(place, Hookpoint.parse(target) if target else place, random_sae(kind), limit)


def measured(model: nn.Module, probe: Probe[Sae], text: EffectText, ablations, batch_tokens: int = 512) -> list[Change]:
    reader = AblationReader(model, probe, BatchRunner(batch_tokens), frozenset({0, 1}), batch_tokens)
    values = np.full((len(ablations), len(text.passages), 7), np.nan)
    with torch.inference_mode():
        for batch in reader.batches(text):
            values[:, batch.rows] = reader.measure(text, batch, ablations)
    return fold_changes(values, text)


def module_of(model: nn.Module, place: Hookpoint) -> tuple[nn.Module, str]:
    block = model.model.layers[place.block]  # pyright: ignore
    modules = {"resid": (block, place.side), "mlp": (block.mlp, "out"), "attn": (block.self_attn, "out")}
    return modules.get(place.site, (block.self_attn.o_proj, "in"))  # pyright: ignore


def hooked_logits(model: nn.Module, ids: Tensor, place: Hookpoint, change: Callable[[Tensor], Tensor]) -> Tensor:
    module, side = module_of(model, place)

    def before(_module, args, kwargs):
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return (), kwargs | {"hidden_states": change(kwargs["hidden_states"])}

    def after(_module, _args, output):
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    if side == "in":
        handle = module.register_forward_pre_hook(before, with_kwargs=True)
    else:
        handle = module.register_forward_hook(after)
    with torch.no_grad():
        logits = model(ids).logits
    handle.remove()
    return logits


def independent(model: nn.Module, probe: Probe[Sae], text: EffectText, latents: tuple[int, ...]) -> Change:
    """One passage at a time, without padding; the whole model; latents set to zero in the decoder's input."""
    documents = len(text.documents.hashes)
    loss, kl = np.zeros((documents, len(TOKEN_CLASSES))), np.zeros((documents, len(TOKEN_CLASSES)))
    norm = np.zeros(documents)
    for passage, document, classes in zip(text.passages, text.document, text.token_class, strict=True):
        ids = torch.from_numpy(passage.token_ids)[None]
        seen: list[Tensor] = []
        hooked_logits(model, ids, probe.hookpoint, lambda x: seen.append(x.clone()) or x)  # noqa: B023
        kept = [at for at in range(1, ids.shape[1]) if ids[0, at] > 1 and seen[0][0, at].norm() <= probe.norm_limit]
        x = seen[0][0, kept]
        found = probe.sae.encode(x)
        dense = torch.zeros(len(kept), probe.sae.num_latents)
        dense[found.token, found.latent] = found.value
        removed = dense[:, list(latents)] @ probe.sae.decoder.weight[list(latents)] * unit_scale(probe.sae, x)[:, None]

        def ablate(vectors: Tensor, kept=kept, removed=removed) -> Tensor:
            changed = vectors.clone()
            changed[0, kept] -= removed
            return changed

        plain = hooked_logits(model, ids, probe.target, lambda x: x)[0]
        after = hooked_logits(model, ids, probe.target, ablate)[0]
        for at in np.flatnonzero(classes != NOT_COUNTED).tolist():
            p, q = plain[at - 1], after[at - 1]
            change = cross_entropy(q, ids[0, at]) - cross_entropy(p, ids[0, at])
            loss[document, classes[at]] += float(change)
            kl[document, classes[at]] += float((p.softmax(-1) * (p.log_softmax(-1) - q.log_softmax(-1))).sum())
        norm[document] += float(removed.norm(dim=-1).sum())
    return Change(loss, kl, norm)


def assert_same(one: Change, other: Change, tolerance: float = 2e-4) -> None:
    for name, own, expected in zip(Change._fields, one, other, strict=True):
        assert np.allclose(own, expected, atol=tolerance, rtol=1e-3), name


@pytest.mark.parametrize("place", PLACES)
def test_changes_equal_those_of_an_independent_script(model, place):
    probe, text = probe_at(place), random_text()
    found = measured(model, probe, text, [LatentSet(probe.sae, latents) for latents in SETS])
    assert np.abs(found[2].loss).max() > 0.1
    for latents, change in zip(SETS, found, strict=True):
        assert_same(change, independent(model, probe, text, latents))


@pytest.mark.parametrize("kind", ["jumprelu", "gated", "topk layer_norm", "gated factor"])
def test_changes_of_other_encoders_equal_those_of_an_independent_script(model, kind):
    probe, text = probe_at("1", kind), random_text(8)
    found = measured(model, probe, text, [LatentSet(probe.sae, SETS[1])])
    assert_same(found[0], independent(model, probe, text, SETS[1]))


@pytest.mark.parametrize("target", ["1_mlp", "2_mlp", "1"])
def test_a_transcoder_reads_in_one_place_and_is_removed_in_another(model, target):
    probe, text = probe_at("1_mlp_norm", target=target), random_text(8)
    found = measured(model, probe, text, [LatentSet(probe.sae, SETS[1])])
    seen = independent_transcoder(model, probe, text, SETS[1])
    assert np.allclose(found[0].loss.sum(1), seen, atol=2e-4, rtol=1e-3)
    assert np.abs(seen).max() > 0.01


def independent_transcoder(
    model: nn.Module, probe: Probe[Sae], text: EffectText, latents: tuple[int, ...]
) -> np.ndarray:
    loss = np.zeros(len(text.documents.hashes))
    norm = model.model.layers[1].post_attention_layernorm  # pyright: ignore
    for passage, document, classes in zip(text.passages, text.document, text.token_class, strict=True):
        ids = torch.from_numpy(passage.token_ids)[None]
        seen: list[Tensor] = []
        handle = norm.register_forward_hook(lambda _m, _a, out: seen.append(out))  # noqa: B023
        with torch.no_grad():
            model(ids)
        handle.remove()
        found = probe.sae.encode(seen[0][0, 1:])
        dense = torch.zeros(ids.shape[1] - 1, probe.sae.num_latents)
        dense[found.token, found.latent] = found.value
        removed = dense[:, list(latents)] @ probe.sae.decoder.weight[list(latents)]

        def ablate(vectors: Tensor, removed=removed) -> Tensor:
            return torch.cat([vectors[:, :1], vectors[:, 1:] - removed], 1)

        for sign, change in ((-1, lambda x: x), (1, ablate)):
            logits = hooked_logits(model, ids, probe.target, change)[0]
            at = np.flatnonzero(classes != NOT_COUNTED)
            loss[document] += sign * float(cross_entropy(logits[at - 1], ids[0, at], reduction="sum"))
    return loss


def test_positions_of_a_large_norm_are_left_as_they_are(model):
    text = random_text(8)
    free = probe_at("1")
    norms = measured(model, free, text, [LatentSet(free.sae, SETS[2])])[0].norm
    limited = probe_at("1", limit=9.0)
    found = measured(model, limited, text, [LatentSet(limited.sae, SETS[2])])[0]
    assert_same(found, independent(model, limited, text, SETS[2]))
    assert found.norm.sum() < norms.sum()


def test_how_passages_are_packed_changes_nothing(model):
    probe, text = probe_at("1"), random_text()
    ablations = [LatentSet(probe.sae, latents) for latents in SETS]
    ablations += [RandomReplacement(ablations[1], draw, (0, "1")) for draw in range(3)]
    wide = measured(model, probe, text, ablations, batch_tokens=4096)
    for one, other in zip(wide, measured(model, probe, text, ablations, batch_tokens=64), strict=True):
        assert_same(one, other, tolerance=1e-4)


def test_a_batch_that_does_not_fit_into_memory_is_halved(model, monkeypatch):
    probe, text = probe_at("1"), random_text(8)
    ablations = [LatentSet(probe.sae, latents) for latents in SETS]
    whole = measured(model, probe, text, ablations)
    original = AblationReader._logits

    def small(reader, plain, rows, cells):
        if len(cells) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return original(reader, plain, rows, cells)

    monkeypatch.setattr(AblationReader, "_logits", small)
    for one, other in zip(whole, measured(model, probe, text, ablations), strict=True):
        assert_same(one, other, tolerance=1e-4)

    def never(reader, plain, rows, cells):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(AblationReader, "_logits", never)
    with pytest.raises(CapacityError, match="single passage"):
        measured(model, probe, text, ablations)


def test_a_latent_that_does_not_fire_on_a_document_changes_exactly_nothing_there(model):
    probe, text = probe_at("1", "jumprelu"), random_text(16)
    silent = Sae(
        probe.sae.d_model,
        probe.sae.steps,
        probe.sae.activation,
        Decoder(probe.sae.decoder.weight, probe.sae.decoder.bias),
    )
    found = measured(model, probe, text, [LatentSet(silent, (latent,)) for latent in range(48)])
    quiet = [change for change in found if (change.norm == 0).any()]
    assert quiet
    for change in quiet:
        assert not change.loss[change.norm == 0].any()
        assert not change.kl[change.norm == 0].any()


def test_controls_are_measured_on_the_control_documents_only(model):
    probe, text = probe_at("1"), random_text()
    own, part = LatentSet(probe.sae, SETS[1]), text.control
    found = measured(model, probe, part, [own])[0]
    all_ = measured(model, probe, text, [own])[0]
    control = text.documents.control
    assert control.sum() == 6
    assert np.isnan(found.loss[~control]).all()
    assert np.allclose(found.loss[control], all_.loss[control], atol=1e-4)


def test_the_width_of_the_tiny_saes_is_that_of_the_model(model):
    assert model.config.hidden_size == WIDTH  # pyright: ignore


@pytest.mark.parametrize("factor", [float("inf"), float("nan")])
def test_losses_that_overflow_are_refused(model, documented, factor):
    last = model.get_submodule("model.layers.3")
    handle = last.register_forward_hook(lambda _module, _args, output: output * factor)
    probe = probe_at("1")
    with pytest.raises(ModelError, match=r"^the losses without features of layer 1 are not finite") as error:
        measured(model, probe, random_text(), [LatentSet(probe.sae, (3,))])
    handle.remove()
    documented("Base models", "losses that overflow", str(error.value))
