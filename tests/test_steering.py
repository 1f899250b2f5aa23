"""Steering, against a loop of our own through TransformerLens's hooks."""

import pytest
import torch

from interp_toolkit import InterpToolkitError, Site
from interp_toolkit.activations import read_activations
from interp_toolkit.chat import prompt_ids, stop_ids
from interp_toolkit.runtime import plain_answers, steered_answers
from interp_toolkit.spans import contents

PROMPT = "the cat sat on the mat"
NEW = 6


def _expected(model, layer, added, chat):
    """Greedy, the whole text anew at each step."""
    (ids,) = prompt_ids(model.tokenizer, [PROMPT], chat)
    start = contents(model.tokenizer, [ids], True)[0][0] if chat else 0
    count = len(ids)

    def add(stream, hook):
        stream[:, start:] += added.to(stream.dtype)
        return stream

    for _ in range(NEW):
        with torch.no_grad():
            logits = model.run_with_hooks(torch.tensor([ids]), fwd_hooks=[(str(Site.after(layer)), add)])
        token = int(logits[0, -1].argmax())
        if token in stop_ids(model):
            break
        ids.append(token)
    return model.tokenizer.decode(ids[count:], skip_special_tokens=True)


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_what_is_added_is_added_to_the_texts_own_tokens_and_the_answers(tiny, random_vectors, architecture, chat):
    model = tiny(architecture)
    vectors, strengths = random_vectors(3, model.cfg.d_model, seed=4), torch.tensor([0.0, 1.0, -2.0])
    (ids,) = prompt_ids(model.tokenizer, [PROMPT], chat)
    start = contents(model.tokenizer, [ids], True)[0][0] if chat else 0
    read = read_activations(model, [ids], 1, range(start, len(ids))).vectors
    length = read.norm(dim=1).median()
    answers = steered_answers(model, PROMPT, 1, vectors, strengths.tolist(), max_new_tokens=NEW, chat=chat)
    for vector, strength, answer in zip(vectors, strengths, answers):
        assert answer == _expected(model, 1, vector / vector.norm() * strength * length, chat)
    assert answers[0] == plain_answers(model, [PROMPT], max_new_tokens=NEW, chat=chat)[0]


def test_a_vector_of_zeros_changes_nothing(smollm, random_vectors):
    plain, same, other = steered_answers(
        smollm,
        "What did you do today?",
        16,
        torch.stack([torch.zeros(576), random_vectors(1, 576)[0], random_vectors(1, 576)[0]]),
        [1.0, 0.0, 0.5],
        max_new_tokens=12,
    )
    assert plain == same == plain_answers(smollm, ["What did you do today?"], max_new_tokens=12)[0]
    assert other != plain


def test_what_cannot_be_steered_is_refused(tiny, unchecked):
    model = tiny()
    with pytest.raises(InterpToolkitError, match=r"expected finite vectors of shape \(n, 32\), got \(1, 3\)"):
        steered_answers(model, PROMPT, 1, torch.ones(1, 3))
    with pytest.raises(InterpToolkitError, match="values that are not finite"):
        steered_answers(model, PROMPT, 1, torch.full((1, 32), torch.nan))
    with pytest.raises(InterpToolkitError, match="expected a site of the residual stream"):
        steered_answers(model, PROMPT, "blocks.1.hook_attn_out", torch.ones(1, 32))
    with pytest.raises(InterpToolkitError, match="max_new_tokens of at least 1, got 0"):
        steered_answers(model, PROMPT, 1, torch.ones(1, 32), max_new_tokens=0)
