"""The cheap dropout hides the share it is asked to and nothing when scoring."""

import pytest
import torch

from churn_udf.model.dropout import FastDropout


def ones() -> torch.Tensor:
    return torch.ones(401, 253)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_share_hidden_and_mean_are_as_asked(share):
    torch.manual_seed(0)
    dropped = FastDropout(share)(ones())
    assert (dropped == 0).float().mean().item() == pytest.approx(share, abs=0.005)
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.02)
    assert len(dropped.unique()) == 2


def test_masks_of_rows_columns_and_calls_are_unlike():
    torch.manual_seed(0)
    layer = FastDropout(0.5)
    masks = torch.stack([layer(ones())[:, :252] == 0 for _ in range(2)]).float()
    quarters = masks.view(2, 401, 63, 4).flatten(0, 2)  # the entries of one random number
    assert (torch.corrcoef(quarters.T) - torch.eye(4)).abs().max() < 0.02
    assert torch.corrcoef(masks.flatten(1))[0, 1].abs() < 0.02
    assert torch.corrcoef(torch.stack([masks[0, :-1], masks[0, 1:]]).flatten(1))[0, 1].abs() < 0.02


def test_gradient_passes_where_the_value_did():
    torch.manual_seed(0)
    values = ones().requires_grad_()
    dropped = FastDropout(0.3)(values)
    dropped.sum().backward()
    assert torch.equal(values.grad, dropped.detach())


def test_generator_state_repeats_the_mask():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    layer = FastDropout(0.2)
    first, second = layer(ones()), layer(ones())
    torch.set_rng_state(state)
    assert torch.equal(layer(ones()), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("layer", [FastDropout(0.2).eval(), FastDropout(0.0)])
def test_scoring_and_a_share_of_zero_change_nothing(layer):
    assert torch.equal(layer(ones()), ones())


def test_a_share_of_one_hides_everything():
    assert not FastDropout(1.0)(ones()).any()
