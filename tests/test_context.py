"""Texts that are longer than what the model can read."""

import pytest
import torch

from interp_toolkit import InterpToolkitError, SoftPrompt, VectorLabelPairs, read_activations
from interp_toolkit.models import backend_of, context_length
from interp_toolkit.runtime import PromptRun, generate, plain_answers, score
from interp_toolkit.training.examples import Examples

CONTEXT = 256


def _message(length):
    return f"is {length} tokens long, and the model's context is {CONTEXT} tokens; shorten it"


def test_prompts_past_the_context_are_refused(tiny, architecture, backend):
    model = tiny(architecture, backend)
    assert context_length(model) == CONTEXT
    fits = [[1] * CONTEXT, [1, 2]]
    assert len(read_activations(model, fits, [1])) == 2
    with pytest.raises(InterpToolkitError, match=f"prompt 1 {_message(CONTEXT + 1)}"):
        read_activations(model, [[1, 2], [1] * (CONTEXT + 1)], [1])
    with pytest.raises(InterpToolkitError, match=f"the longest text {_message(CONTEXT + 1)}"):
        backend_of(model).hidden(torch.ones(1, CONTEXT + 1, dtype=torch.long))


def test_a_soft_prompt_with_what_follows_it_fits_the_context(tiny, architecture, backend, random_vectors):
    model = tiny(architecture, backend)
    run = PromptRun(model, SoftPrompt.for_chat(model.tokenizer, "Z" * 222 + "{slot}"))
    room = CONTEXT - len(run.tokens.ids)
    assert 0 < room < 20
    vectors = random_vectors(2)
    # The last token is written, or scored, and not read.
    assert len(score(run, vectors, [[7] * (room + 1), [7]]).mean()) == 2
    with pytest.raises(InterpToolkitError, match=f"the soft prompt with the longest target {_message(CONTEXT + 1)}"):
        score(run, vectors, [[7] * (room + 2), [7]])
    with pytest.raises(
        InterpToolkitError, match=f"the soft prompt with max_new_tokens=300 {_message(CONTEXT - room + 299)}"
    ):
        generate(run, vectors, max_new_tokens=300)
    assert len(generate(run, vectors[:1], max_new_tokens=room + 1, until="length")[0][0].token_ids) == room + 1
    with pytest.raises(InterpToolkitError, match=r"the soft prompt is \d+ tokens long, and the model's context is 256"):
        PromptRun(model, SoftPrompt.for_chat(model.tokenizer, "Z " * 300 + "{slot}"))
    with pytest.raises(InterpToolkitError, match=r"the soft prompt with max_new_tokens=64 is \d+ tokens long"):
        plain_answers(model, ["Z " * (CONTEXT // 2 - 10)])


def test_a_label_past_the_context_is_named(tiny, random_vectors, tiny_prompt):
    pairs = VectorLabelPairs.from_tensors(random_vectors(2), ["a", "Z " * 200], splits=["train", "train"])
    with pytest.raises(
        InterpToolkitError, match=r"the soft prompt with the label 'Z Z .* tokens long, and the model's"
    ):
        Examples.from_pairs(pairs, PromptRun(tiny(), tiny_prompt))


def test_positions_without_an_end(tiny):
    from types import SimpleNamespace

    def model(**config):
        held = SimpleNamespace(**config)
        held.get_text_config = lambda: held
        return SimpleNamespace(original_model=SimpleNamespace(config=held))

    assert context_length(model()) is None
    assert context_length(model(max_position_embeddings=64, alibi=True)) is None
    assert context_length(model(max_position_embeddings=64, alibi=False)) == 64
    assert context_length(model(max_position_embeddings=-1)) is None
