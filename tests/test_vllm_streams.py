"""What is written into the streams of a model of vLLM's form and read of them, in passes of any order."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from interp_toolkit import InterpToolkitError, Site
from interp_toolkit.engines.vllm_streams import NumberedToken, Streams, stream_index

WIDTH, BLOCKS = 16, 3


class _Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(WIDTH, WIDTH)

    def forward(self, positions, hidden_states, residual):
        residual = hidden_states if residual is None else hidden_states + residual
        return torch.tanh(self.inner(residual)), residual


class _Norm(nn.Module):
    def forward(self, x, residual=None):
        return x + residual, None


class _Model(nn.Module):
    """A decoder as vLLM writes them: what a block adds travels beside the stream."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.model = nn.Module()
        self.model.layers = nn.ModuleList(_Block() for _ in range(BLOCKS))
        self.model.norm = _Norm()
        self.embedding = nn.Embedding(50, WIDTH)
        self.factor = factor

    def embed_input_ids(self, ids):
        return self.embedding(ids)

    def forward(self, rows):
        hidden, residual = rows * self.factor, None
        for block in self.model.layers:
            hidden, residual = block(torch.arange(len(rows)), hidden, residual)
        return self.model.norm(hidden, residual)[0]


def _llm(model, eager=True):
    config = SimpleNamespace(model_config=SimpleNamespace(enforce_eager=eager))
    return SimpleNamespace(
        apply_model=lambda function: [function(model)], llm_engine=SimpleNamespace(vllm_config=config)
    )


@pytest.fixture
def model():
    torch.manual_seed(0)
    return _Model().requires_grad_(False)


def _streams(model, row):
    """The stream before each block and behind the last, of one row, by hand."""
    out = [row]
    for block in model.model.layers:
        out.append(out[-1] + torch.tanh(block.inner(out[-1])))
    return out


def _embedded(model, *ids):
    return model.embed_input_ids(torch.tensor(ids, dtype=torch.long))


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1)])
def test_rows_are_known_by_their_numbers_whatever_their_order(model, dtype, atol):
    streams = Streams(_llm(model.to(dtype)), BLOCKS)
    tokens = [NumberedToken(i, read=(0, 2, 3)) for i in range(5, 45)]
    with streams.numbering():
        rows = torch.stack([streams.number(token, WIDTH) for token in tokens]).to(dtype)
        order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
        plain = _embedded(model, 1, 2)
        # In pieces, beside tokens that are none of ours, and some of them twice, as one that was put off is.
        for part in (order[:7], order[7:30], order[25:], order[:0]):
            out = model(torch.cat([plain, rows[part]]))
            assert torch.equal(out, model(torch.cat([plain, _embedded(model, *(part + 5).tolist())])))
    for token in tokens:
        by_hand = _streams(model, _embedded(model, token.token)[0])
        assert all(torch.allclose(token.seen[i], by_hand[i].float(), atol=atol) for i in (0, 2, 3))


@pytest.mark.parametrize("index", range(BLOCKS + 1))
@pytest.mark.parametrize("add", [False, True])
def test_what_is_written_is_the_stream_from_there_on(model, index, add):
    streams = Streams(_llm(model), BLOCKS)
    new = torch.linspace(-1, 1, WIDTH)
    token = NumberedToken(7, written=new, add=add, at=index)
    rows = _embedded(model, 3, 7)
    with streams.numbering():
        out = model(torch.stack([rows[0], streams.number(token, WIDTH)]))
    stream = _streams(model, rows[1])[index]
    stream = stream + new if add else new
    for block in model.model.layers[index:]:
        stream = stream + torch.tanh(block.inner(stream))
    assert torch.allclose(out[1], stream, atol=1e-5)
    assert torch.allclose(out[0], _streams(model, rows[0])[-1], atol=1e-5)
    # Nothing stays.
    assert torch.allclose(model(rows)[1], _streams(model, rows[1])[-1], atol=1e-5)


def test_no_two_tokens_are_sent_alike(model):
    streams = Streams(_llm(model), BLOCKS)
    rows = torch.stack([streams.number(NumberedToken(1), WIDTH) for _ in range(300)])
    assert len({tuple(row) for row in rows.bfloat16().tolist()}) == 300
    with pytest.raises(InterpToolkitError, match="passed 300 of 300 tokens by"):
        with streams.numbering():
            pass


def test_a_model_that_changes_embeddings_first_is_refused():
    streams = Streams(_llm(_Model(factor=4.0)), BLOCKS)
    with pytest.raises(InterpToolkitError, match="does not give embeddings to its first block as they are sent"):
        with streams.numbering():
            streams._model(torch.stack([streams.number(NumberedToken(1), WIDTH)]))


def test_models_that_cannot_be_reached_say_why(model):
    with pytest.raises(InterpToolkitError, match="compiled, and so calls no hooks; start it with enforce_eager=True"):
        Streams(_llm(model, eager=False), BLOCKS)
    with pytest.raises(InterpToolkitError, match="in another process; set VLLM_ENABLE_V1_MULTIPROCESSING=0"):
        Streams(SimpleNamespace(apply_model=lambda function: [None]), BLOCKS)
    with pytest.raises(InterpToolkitError, match="has no list of blocks with a norm behind it"):
        Streams(_llm(model), BLOCKS + 1)


def test_sites_between_blocks():
    assert stream_index(Site.parse("blocks.0.hook_resid_pre"), 4) == 0
    assert stream_index(Site.after(3), 4) == 4
    for site in (Site.embedding(), Site.parse("blocks.1.hook_attn_out"), Site.parse("blocks.1.hook_resid_mid")):
        with pytest.raises(InterpToolkitError, match="expected a site in the stream between blocks"):
            stream_index(site, 4)
