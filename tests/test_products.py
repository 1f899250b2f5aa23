"""Matrices in blocks: the products of plain ones, and never those of matrices that have changed since."""

import pytest
import torch
from torch import nn

from interp_toolkit import load_model
from interp_toolkit.models import backend_of, products
from interp_toolkit.models.products import Products

_TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 1e-2}


@pytest.fixture(params=_TOLERANCE, ids=str)
def dtype(request):
    if not products.blocks_are_read(request.param):
        pytest.skip(f"this processor has no fast products of {request.param} in blocks")
    return request.param


@pytest.fixture(autouse=True)
def _small_models_too(monkeypatch):
    monkeypatch.setattr(products, "_SMALLEST", 0)


@pytest.fixture
def matrices(dtype):
    torch.manual_seed(0)
    first, second = nn.Linear(48, 32, bias=False), nn.Linear(48, 16)
    for parameter in (*first.parameters(), *second.parameters()):
        parameter.requires_grad_(False)
    return first.to(dtype), second.to(dtype)


def _weights(matrices):
    return [parameter for matrix in matrices for parameter in matrix.parameters()]


@pytest.fixture
def in_blocks(matrices):
    """Products that have seen enough passes."""
    made = Products()
    made.see(b"first", _weights(matrices))
    for _ in range(products._PASSES + 1):
        made.begin_pass()
    return made


def _check(made, matrices):
    dtype = matrices[0].weight.dtype
    x = torch.randn(3, 2, 48).to(dtype)
    for got, matrix in zip(made(x, matrices), matrices):
        torch.testing.assert_close(got, matrix(x), atol=_TOLERANCE[dtype], rtol=_TOLERANCE[dtype])
        assert got.shape == (3, 2, matrix.out_features)


def test_products_in_blocks_are_those_of_plain_matrices(in_blocks, matrices):
    _check(in_blocks, matrices)
    _check(in_blocks, matrices[:1])
    assert len(in_blocks._blocks) == 2


def test_a_matrix_edited_in_place_or_replaced_is_seen_by_the_next_pass(in_blocks, matrices):
    _check(in_blocks, matrices)
    with torch.no_grad():
        matrices[0].weight.mul_(3)
    in_blocks.begin_pass()
    _check(in_blocks, matrices)
    matrices[1].bias = nn.Parameter(torch.ones_like(matrices[1].bias), requires_grad=False)
    in_blocks.begin_pass()
    _check(in_blocks, matrices)


def test_other_weights_begin_anew(in_blocks, matrices):
    _check(in_blocks, matrices)
    matrices[0].weight.data.mul_(3)  # which leaves no trace but that of `weights_version`
    in_blocks.see(b"second", _weights(matrices))
    assert not in_blocks._blocks
    _check(in_blocks, matrices)
    assert not in_blocks._blocks


@pytest.mark.parametrize("change", ["dtype", "size", "smallness", "passes", "gradient"])
def test_plain_matrices_stay_where_blocks_do_not_pay(matrices, monkeypatch, change):
    if change == "size":
        monkeypatch.setattr(products, "_LARGEST", 1000)
    if change == "smallness":
        monkeypatch.setattr(products, "_SMALLEST", 2**20)
    if change == "dtype":
        matrices = tuple(matrix.to(torch.float16) for matrix in matrices)
    made = Products()
    made.see(b"first", _weights(matrices))
    for _ in range(products._PASSES + (change != "passes")):
        made.begin_pass()
    x = torch.randn(2, 48, dtype=matrices[0].weight.dtype, requires_grad=change == "gradient")
    assert all(torch.equal(got, matrix(x)) for got, matrix in zip(made(x, matrices), matrices))
    assert not made._blocks


def test_matrices_of_several_dtypes_stay_as_they_are(matrices):
    made = Products()
    made.see(b"first", [*_weights(matrices), torch.ones(2, dtype=torch.float64)])
    for _ in range(products._PASSES + 1):
        made.begin_pass()
    made(torch.randn(2, 48).to(matrices[0].weight.dtype), matrices)
    assert not made._blocks


def test_a_model_in_blocks_is_the_model(checkpoints, dtype):
    tolerance = 1e-5 if dtype == torch.float32 else 5e-2
    model = load_model(checkpoints["llama"], dtype=dtype)
    backend, tokens = backend_of(model), torch.tensor([[5, 9, 31, 7, 2]])
    with torch.no_grad():
        first, _ = backend.hidden(tokens)
        for _ in range(products._PASSES):
            last, _ = backend.hidden(tokens)
        assert backend._products._blocks
        torch.testing.assert_close(first, last, atol=tolerance, rtol=tolerance)
        torch.testing.assert_close(backend.logits(last), model(tokens).float(), atol=tolerance, rtol=tolerance)
        model.original_model.get_input_embeddings().weight.data.mul_(1.5)
        backend.look()
        assert not backend._products._blocks
