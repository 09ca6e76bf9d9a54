"""Changes of losses and KL divergences equal those of float64, for changes small and large."""

import pytest
import torch

from stratalens.effects.prediction import MAX_GROWTH, Prediction

TOKENS, VOCABULARY = 40, 5000


def in_float64(before: torch.Tensor, after: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    log_p, log_q = (own.double().log_softmax(-1) for own in (before, after))
    change = log_p - log_q
    return change.gather(1, target[:, None])[:, 0], (log_p.exp() * change).sum(-1)


@pytest.mark.parametrize("size", [0.0, 1e-3, 0.1, 3.0, 30.0])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_changes_are_those_of_float64(size, dtype):
    torch.manual_seed(0)
    before = (3 * torch.randn(TOKENS, VOCABULARY)).to(dtype)
    after = (before + size * torch.randn(TOKENS, VOCABULARY)).to(dtype)
    target = torch.randint(VOCABULARY, (TOKENS,))
    found = Prediction.of(before, target).changed_to(after)
    loss, kl = in_float64(before, after, target)
    assert ((after.float() - before.float()).max() > MAX_GROWTH) == (size == 30)
    torch.testing.assert_close(found.loss.double(), loss, rtol=1e-5, atol=1e-5 * size)
    torch.testing.assert_close(found.kl.double(), kl, rtol=1e-5, atol=1e-5 * size)
    if size == 0:
        assert not found.loss.any()
        assert not found.kl.any()


def test_a_token_out_of_nowhere_is_not_lost():
    before, after = torch.zeros(1, 3), torch.zeros(1, 3)
    before[0, 0], after[0, 1] = 300.0, 300.0
    found = Prediction.of(before, torch.tensor([0])).changed_to(after)
    assert found.loss.item() == pytest.approx(300, rel=1e-6)
    assert found.kl.item() == pytest.approx(300, rel=1e-6)


@pytest.mark.parametrize("shift", [-40.0, -5.0, 5.0, 40.0])
def test_what_moves_all_logits_alike_changes_nothing(shift):
    torch.manual_seed(1)
    before, target = 3 * torch.randn(TOKENS, VOCABULARY), torch.randint(VOCABULARY, (TOKENS,))
    after = before + 0.1 * torch.randn(TOKENS, VOCABULARY) + shift
    found = Prediction.of(before, target).changed_to(after)
    loss, kl = in_float64(before, after, target)
    torch.testing.assert_close(found.loss.double(), loss, rtol=1e-5, atol=1e-5)  # a float32 of 40 has 4e-6
    torch.testing.assert_close(found.kl.double(), kl, rtol=1e-4, atol=1e-6)
