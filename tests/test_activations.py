import pytest
import torch

from interp_toolkit import InterpToolkitError, Site, load_model, read_activations
from interp_toolkit.activations import read_token_vectors
from interp_toolkit.chat import prompt_ids, turn_start
from interp_toolkit.models import backend_of
from interp_toolkit.sites import SiteStack

PROMPTS = ["Tell me about rivers.", "Tell me about the history of Poland, and of its rivers, please.", "foxes?"]


def _truth(hf, tokenizer, prompts):
    """Hugging Face's hidden states, prompt by prompt, with nothing shared or padded: [layer][position]."""
    return [hf(torch.tensor([ids]), output_hidden_states=True).hidden_states for ids in prompt_ids(tokenizer, prompts)]


def test_readings_are_those_of_hugging_face(tiny, tiny_hf, architecture, backend):
    model = tiny(architecture, backend)
    got = read_activations(
        model, PROMPTS, sites=["blocks.1.hook_resid_post", 0, "blocks.2.hook_resid_pre"], positions=[-1, 5]
    )
    truth = _truth(tiny_hf(architecture), model.tokenizer, PROMPTS)
    layers = {"blocks.1.hook_resid_post": 2, "blocks.0.hook_resid_post": 1, "blocks.2.hook_resid_pre": 2}
    assert len(got) == 3 * 3 * 2
    assert got.table[["prompt", "site"]].drop_duplicates().values.tolist()[:3] == [[0, name] for name in layers]
    for vector, (_, row) in zip(got.vectors, got.table.iterrows()):
        expected = truth[row.prompt][layers[row.site]][0, row.position]
        assert torch.allclose(vector, expected, atol=1e-4, rtol=1e-4)


def test_every_position_of_the_embedded_model(smollm, smollm_hf):
    got = read_activations(smollm, PROMPTS[:2], sites=[23, 3], positions="all")
    truth = _truth(smollm_hf, smollm.tokenizer, PROMPTS[:2])
    assert len(got) == 2 * sum(states[0].shape[1] for states in truth)
    for vector, (_, row) in zip(got.vectors, got.table.iterrows()):
        expected = truth[row.prompt][24 if "23" in row.site else 4][0, row.position]
        assert (vector - expected).norm() / expected.norm() < 1e-4
    first = got.table[(got.table.prompt == 0) & (got.table.site == "blocks.23.hook_resid_post")]
    assert "".join(first.token) == smollm.tokenizer.decode(prompt_ids(smollm.tokenizer, PROMPTS[:1])[0])


def _watch(runner, monkeypatch):
    """Rows and tokens of each pass from now on, at the first block, and tokens at the last."""
    widths, deep = [], []
    # As edits of the pass: hooks of a user's would be seen, and then nothing is shared.
    watch = {
        Site.after(0): lambda x: widths.append(tuple(x.shape[:2])),
        Site.after(2): lambda x: deep.append(x.shape[1]),
    }

    def watched(tokens, past=None, edits=None, *arguments, run=runner.hidden, **named):
        return run(tokens, past, {**(edits or {}), **watch}, *arguments, **named)

    monkeypatch.setattr(runner, "hidden", watched)
    return widths, deep


def test_the_shared_prefix_runs_once_and_the_pass_stops_at_the_deepest_site(tiny, backend, monkeypatch):
    model = tiny("llama", backend)
    widths, deep = _watch(backend_of(model), monkeypatch)
    read_activations(model, ["Tell me about rivers.", "Tell me about foxes."], sites=[1])
    ids = prompt_ids(model.tokenizer, ["Tell me about rivers.", "Tell me about foxes."])
    shared = next(i for i, (a, b) in enumerate(zip(*ids)) if a != b)
    assert widths == [(1, shared), (2, max(map(len, ids)) - shared)]
    assert deep == [shared]  # the prefix alone goes on to the end


def test_what_the_template_begins_with_is_kept_as_long_as_the_weights_stay(checkpoints, backend, monkeypatch):
    model = load_model(checkpoints["llama"], backend=backend, dtype="float32")
    widths, _ = _watch(backend_of(model), monkeypatch)
    text = "Tell me about foxes."
    start, length = len(turn_start(model.tokenizer)), len(prompt_ids(model.tokenizer, [text])[0])
    assert 3 < start < length - 3
    first = read_activations(model, text, sites=[1], positions="content").vectors
    again = read_activations(model, text, sites=[1], positions="content").vectors
    assert widths == [(1, start), (1, length - start), (1, length - start)]
    assert torch.equal(first, again)
    whole = read_activations(model, text, sites=[1], positions="all")  # the template's tokens too
    assert widths[3:] == [(1, length)]
    assert torch.allclose(whole.vectors[start : start + len(first)], first, atol=1e-5)
    read_activations(model, prompt_ids(model.tokenizer, [text], chat=False)[0], sites=[1])
    assert len(widths) == 5  # another beginning is not shared
    with torch.no_grad():
        backend_of(model).embedding_weight.mul_(1.5)
    edited = read_activations(model, text, sites=[1], positions="content").vectors
    assert widths[5:] == [(1, start), (1, length - start)]
    whole = read_activations(model, text, sites=[1], positions="all").vectors[start:]
    assert torch.allclose(edited, whole[: len(first)], atol=1e-5)


def test_order_and_company_change_nothing(tiny):
    model = tiny()
    together = read_activations(model, PROMPTS, sites=[2]).vectors
    for i, prompt in enumerate(PROMPTS):
        assert torch.allclose(read_activations(model, prompt, sites=2).vectors[0], together[i], atol=1e-5)
    assert torch.allclose(read_activations(model, PROMPTS[::-1], sites=[2]).vectors.flip(0), together, atol=1e-5)


def test_messages_ids_and_plain_text_are_read(tiny):
    model = tiny()
    text = read_activations(model, "foxes?", sites=[1]).vectors
    messages = read_activations(model, [{"role": "user", "content": "foxes?"}], sites=[1]).vectors
    ids = read_activations(model, prompt_ids(model.tokenizer, ["foxes?"])[0], sites=[1]).vectors
    assert torch.equal(text, messages)
    assert torch.equal(text, ids)
    plain = read_activations(model, "foxes?", sites=[1], positions="all", chat=False)
    assert "".join(plain.table.token) == "<|bos|>foxes?"


def test_the_tokens_of_a_text_without_those_of_the_template(tiny):
    model = tiny()
    texts = ["foxes?", "The dog runs."]
    in_turn, plain = (read_activations(model, texts, [1], "content", chat=chat) for chat in (True, False))
    for read in (in_turn, plain):
        by_prompt = read.table.groupby("prompt").token.agg("".join)
        assert by_prompt.str.strip().tolist() == texts
    whole = read_activations(model, texts[0], [1], "all")
    first = in_turn.table[in_turn.table.prompt == 0]
    expected = whole.vectors[first.position.tolist()]
    assert torch.allclose(in_turn.vectors[first.index.tolist()], expected, atol=1e-5)


def test_vectors_of_chosen_tokens_are_those_of_the_table(tiny):
    model, stack = tiny(), SiteStack([0, 2, 3])
    ids = prompt_ids(model.tokenizer, PROMPTS)
    chosen = [[1, len(row) - 1] if i % 2 else [len(row) - 2] for i, row in enumerate(ids)]
    read = read_activations(model, ids, stack, "all")
    rows = [(read.table.prompt == i) & (read.table.position == at) for i, row in enumerate(chosen) for at in row]
    expected = torch.stack([read.vectors[int(row.to_numpy().nonzero()[0][0])] for row in rows])
    assert torch.allclose(read_token_vectors(model, ids, stack, chosen), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("prompts", "sites", "positions", "message"),
    [
        ([[{"role": "user", "content": "a"}]], [0], "content", "positions='content' reads a text's own tokens, and"),
        ([""], [0], "last", "prompt 0 is empty"),
        (["a", "  "], [0], "last", "prompt 1 is empty"),
        ([], [0], "last", "expected at least one prompt"),
        (["a"], [], "last", "expected at least one site"),
        (["a"], [4], "last", r"blocks\.4\.hook_resid_post does not exist: the model has 4 layers"),
        (["a"], [0], [500], r"position 500 does not exist in prompt 0, which has \d+ tokens"),
        (["a"], [0], "first", "expected positions 'all', 'content', 'last' or a list"),
        ([["a"]], [0], "last", r"prompt 0 is empty or of an unknown kind.*got \['a'\]"),
    ],
)
def test_mistakes_are_named(tiny, unchecked, prompts, sites, positions, message):
    with pytest.raises(InterpToolkitError, match=message):
        read_activations(tiny(), prompts, sites=sites, positions=positions)


def test_a_site_below_every_block(tiny, tiny_hf):
    got = read_activations(tiny("gemma2"), ["foxes?"], sites=[Site.embedding()], positions=[3])
    ids = prompt_ids(tiny("gemma2").tokenizer, ["foxes?"])
    embedded = tiny_hf("gemma2").get_input_embeddings()(torch.tensor(ids[0][3]))  # scaled by sqrt(d_model)
    assert torch.allclose(got.vectors[0], embedded, atol=1e-6)


def test_the_vectors_of_a_site_as_an_array(tiny):
    read = read_activations(tiny(), PROMPTS, sites=[2, 0], positions=[-2, -1])
    array = read.at(0)
    assert array.shape == (len(PROMPTS), 2, 32)
    for i, prompt in enumerate(PROMPTS):
        alone = read_activations(tiny(), prompt, sites=0, positions=[-2, -1]).vectors
        assert torch.allclose(array[i], alone, atol=1e-5)
    assert torch.equal(read.at(Site.after(2)), read.at("blocks.2.hook_resid_post"))
    stack = SiteStack([2, 0])
    assert torch.equal(read_activations(tiny(), PROMPTS, stack, [-2, -1]).at(stack), torch.cat([read.at(2), array], 2))
    with pytest.raises(InterpToolkitError, match=r"sites that were read \(blocks.2.*, blocks.0.*\), got blocks.1"):
        read.at(1)
    with pytest.raises(InterpToolkitError, match="as many positions of each prompt, got .* to .*activations.table"):
        read_activations(tiny(), ["foxes?", "Tell me about rivers."], sites=0, positions="all").at(0)
