"""Products in bf16 stay near those in fp32, gradients too, whatever the number of rows."""

import pytest
import torch
from torch.nn import functional

from churn_udf.model.mixed import Dense, bf16_products, dense


@pytest.fixture
def layer() -> Dense:
    torch.manual_seed(0)
    return Dense(24, 16)


def random_rows(count: int, width: int = 24) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(count))


def test_outside_the_context_it_is_a_linear_layer(layer):
    rows = random_rows(5)
    assert torch.equal(layer(rows), functional.linear(rows, layer.weight, layer.bias))


@pytest.mark.parametrize("count", [64, 65, 95, 96])
def test_outputs_and_gradients_are_near_those_of_fp32(layer, count):
    def run(is_enabled):
        layer.zero_grad()
        rows = random_rows(count).requires_grad_()
        with bf16_products(is_enabled):
            outputs = layer(rows)
        (outputs * random_rows(count, 16)).sum().backward()
        return [outputs.detach(), rows.grad, layer.weight.grad, layer.bias.grad]

    exact, rounded = run(is_enabled=False), run(is_enabled=True)
    assert not torch.equal(exact[0], rounded[0])
    for one, two in zip(exact, rounded, strict=True):
        assert two.dtype == torch.float32
        assert (one - two).norm() < 0.01 * one.norm()


def test_rows_do_not_depend_on_how_many_there_are(layer):
    rows = random_rows(200)
    with bf16_products():
        torch.testing.assert_close(layer(rows)[:77], layer(rows[:77]), atol=1e-6, rtol=0)


def test_few_rows_are_not_rounded(layer):
    rows = random_rows(63)
    with bf16_products():
        assert torch.equal(layer(rows), functional.linear(rows, layer.weight, layer.bias))


def test_frozen_weights_and_missing_biases_take_no_gradient(layer):
    layer.requires_grad_(False)
    rows = random_rows(70).requires_grad_()
    with bf16_products():
        dense(rows, layer.weight).sum().backward()
    assert layer.weight.grad is None
    expected = layer.weight.bfloat16().float().sum(0).expand(70, -1)
    torch.testing.assert_close(rows.grad, expected, atol=0.01, rtol=0.01)


def test_an_error_inside_ends_the_rounding(layer):
    with pytest.raises(RuntimeError), bf16_products():
        layer(random_rows(70, width=3))
    rows = random_rows(70)
    assert torch.equal(layer(rows), functional.linear(rows, layer.weight, layer.bias))
