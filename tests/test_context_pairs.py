"""Pairs from unlabelled text: which tokens are drawn, what they are labelled with, and that reading goes on."""

import sys

import pytest
import torch

from interp_toolkit import InterpToolkitError, SiteStack, read_activations
from interp_toolkit.chat import prompt_ids
from interp_toolkit.pairs import context_pairs
from interp_toolkit.pairs.context import tokens_in_words
from interp_toolkit.pairs.phrases import phrase_ending, split_words
from interp_toolkit.spans import contents

TEXTS = [
    "Tell me about the history of Poland, and of its rivers.",
    "Bees see foxes. A dog runs in the garden of the old house!",
    "... ---",
    "baseball",
]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_TOOLKIT_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("word", "limit", "phrase"),
    [
        ("Tower", 4, "saw the Eiffel Tower"),
        ("Tower", 2, "Eiffel Tower"),
        ("Tower", 1, "Tower"),
        ("the", 4, "saw the"),
        ("last", 4, "last"),
        ("home", 3, "home"),
        ("co-author", 4, "co-author"),
    ],
)
def test_a_phrase_ends_in_its_word(word, limit, phrase):
    text = "She saw  the\nEiffel Tower, at last. It is my home: a co-author's."
    words = split_words(text)
    index = next(i for i, other in enumerate(words) if other.text.startswith(word))
    assert phrase_ending(text, words, index, limit).removesuffix("'s") == phrase


@pytest.mark.parametrize("chat", [True, False])
def test_tokens_belong_to_the_words_that_they_write(smollm, chat):
    text = "Antidisestablishmentarianism (1890s) isn't Zürich's co-operative, is it?"
    words = split_words(text)
    (ids,) = prompt_ids(smollm.tokenizer, [text], chat)
    (content,) = contents(smollm.tokenizer, [ids], chat)
    tokens = tokens_in_words(smollm.tokenizer, ids, content, words)
    written = {}
    for token in tokens:
        written[token.index] = written.get(token.index, "") + smollm.tokenizer.decode([ids[token.position]])
    assert {words[i].text: part.strip() for i, part in written.items()} == {word.text: word.text for word in words}
    assert len(tokens) > len(words)


@pytest.mark.parametrize("text", ["你们 saw 河流 b", "a ñandú é b", "the 中文 word"])
def test_bytes_of_a_character_are_tokens_of_its_word(byte_tokenizer, text):
    words, ids = split_words(text), list(text.encode())
    tokens = tokens_in_words(byte_tokenizer, ids, (0, len(ids)), words)
    character_of = [i for i, sign in enumerate(text) for _ in sign.encode()]
    expected = [
        (position, index)
        for position, at in enumerate(character_of)
        for index, word in enumerate(words)
        if word.start <= at < word.end
    ]
    assert [(token.position, token.index) for token in tokens] == expected


def test_vectors_are_those_of_the_drawn_tokens(tiny):
    model, stack = tiny(), SiteStack([0, 2])
    pairs = context_pairs(model, TEXTS, stack, per_text=100, val_fraction=0.25, seed=1)
    text = TEXTS[1].removesuffix("!")
    (ids,) = prompt_ids(model.tokenizer, [text], False)
    words = split_words(text)
    (content,) = contents(model.tokenizer, [ids], False)
    tokens = tokens_in_words(model.tokenizer, ids, content, words)
    few = {i for i, word in enumerate(words) if not word.is_content}
    labels = [phrase_ending(text, words, token.index, 4) for token in tokens if token.index not in few]
    whole = read_activations(model, [ids], stack, "all").vectors
    own = [i for i, (label,) in enumerate(pairs.labels) if label in labels]
    assert {pairs.labels[i][0] for i in own} == set(labels)
    expected = whole[[token.position for token in tokens if token.index not in few]]
    actual = pairs.vectors[own] + pairs.mean
    assert all((actual - vector).norm(dim=1).min() < 1e-3 for vector in expected)
    train = pairs.split("train")
    assert torch.allclose(train.vectors.mean(0), torch.zeros(64), atol=1e-4)
    assert pairs.origin["source"] == "tokens in context"
    assert pairs.site == stack


def test_labels_may_go_on_and_texts_stay_on_one_side(tiny):
    pairs = context_pairs(tiny(), TEXTS * 5, 2, per_text=3, words=1, following=2, val_fraction=0.5, seed=2)
    labels = {label for (label,) in pairs.labels}
    assert labels <= {
        "Tell me about", "history of Poland", "Poland", "rivers", "Bees see foxes", "see foxes", "foxes", "dog runs in",
        "runs in the", "garden of the", "old house", "house", "baseball",
    }  # fmt: skip
    assert set(pairs.splits) == {"train", "val"}
    assert len(pairs) == 5 * (3 + 3 + 3)
    one_text = [pairs.splits[i] for i in range(3)]
    assert len(set(one_text)) == 1


def test_reading_goes_on_where_it_stopped(tiny, monkeypatch):
    monkeypatch.setattr(sys.modules["interp_toolkit.pairs.context"], "_SHARD", 2)
    module, runs = sys.modules["interp_toolkit.pairs.token_vectors"], []
    read = module.read_token_vectors

    def counted(*args):
        runs.append(len(args[1]))
        if len(runs) == 2:
            raise KeyboardInterrupt
        return read(*args)

    texts = [text for text in TEXTS if "..." not in text] * 2
    monkeypatch.setattr(module, "read_token_vectors", counted)
    with pytest.raises(KeyboardInterrupt):
        context_pairs(tiny(), iter(texts), 2)
    pairs = context_pairs(tiny(), iter(texts), 2)
    assert runs == [2, 2, 2, 2]  # the first shard was read once
    again = context_pairs(tiny(), texts, 2)
    assert len(runs) == 4
    assert torch.equal(again.vectors, pairs.vectors)
    assert again.labels == pairs.labels
    with tiny().hooks(fwd_hooks=[("blocks.1.hook_out", lambda x, hook: x * 2)]):
        hooked = context_pairs(tiny(), texts, 2)
    assert not torch.allclose(hooked.vectors, pairs.vectors)


@pytest.mark.parametrize(
    ("texts", "settings", "message"),
    [
        ("one text", {}, "expected texts, got one text, 'one text'; put it into a list"),
        (["a text", None], {}, r"text 1 is missing \(None\); leave it out"),
        (["a text", 3], {}, "text 1 is no text but 3; leave it out"),
        (["...", "--"], {}, "expected texts with words, got 2 texts without; give others"),
        (["a text"], dict(words=0), "expected words of at least 1, got 0"),
        (["a text"], dict(per_text=0), "expected per_text of at least 1, got 0"),
    ],
)
def test_what_has_no_words_is_refused(tiny, unchecked, texts, settings, message):
    with pytest.raises(InterpToolkitError, match=message):
        context_pairs(tiny(), texts, 2, **settings)
