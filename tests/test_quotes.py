"""Labels come back as they were given, whatever quotes they hold."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp_toolkit import InterpToolkitError, SoftPrompt
from interp_toolkit.chat import stop_ids
from interp_toolkit.quotes import closed_label, closing_quote, described
from interp_toolkit.runtime import PromptRun
from interp_toolkit.runtime.texts import TextEnds, WrittenText

LABELS = [
    '12" records',
    "5'10\" tall people",
    'x="1"',
    '"Weird Al" Yankovic',
    'the song "Help!"',
    'a 7" and a 12" single',
    '5\'10", or 12" of "it',
    '"',
    '("a") "b',
    "plain words",
    "\u201ctypographic\u201d ones",
    "don 't , really \" ?",
]


def _written(run, ids):
    """What becomes of these tokens, if the model writes them."""
    text = WrittenText(TextEnds.from_prompt(run.model.tokenizer, stop_ids(run.model), run.soft_prompt.stop, "quote"))
    for token in ids:
        if not text.add(token, -1.0):
            break
    return text.generation()


@pytest.fixture(scope="module")
def runs(tiny, tiny_tokenizer):
    plain = SoftPrompt.for_text(tiny_tokenizer, '"puppy": "a young dog"\n"{slot}": "')
    return [PromptRun(tiny("gpt2"), prompt) for prompt in (SoftPrompt.for_chat(tiny_tokenizer), plain)]


@pytest.mark.parametrize("label", LABELS)
def test_a_label_is_read_as_it_was_taught(runs, tiny_tokenizer, label):
    for run in runs:
        (target,) = run.soft_prompt.targets(tiny_tokenizer, [label])
        text = _written(run, target)
        assert text.text == label
        assert text.token_ids == tuple(target[: len(text.token_ids)])
        assert len(text.log_probs) == len(text.token_ids) == len(target) - 1  # without the stop


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="ab1 \"'=.,([-é\u201d", min_size=1, max_size=12).filter(str.strip))
def test_any_label_is_read_as_it_was_taught(runs, tiny_tokenizer, label):
    for run in runs:
        (target,) = run.soft_prompt.targets(tiny_tokenizer, [label])
        assert _written(run, target).text == label.strip()
    assert described(closed_label(label.strip(), ""), stopped=True) == label.strip()


def test_a_text_that_goes_on_is_cut_at_its_first_closing_quote(runs, tiny_tokenizer):
    for run in runs:
        for written, text in [
            ('a bird" and so on and on', "a bird"),
            ('"Weird Al" Yankovic" is a singer', '"Weird Al" Yankovic'),
            ('the song "Help!" by the Beatles".', 'the song "Help!" by the Beatles'),
        ]:
            ids = tiny_tokenizer(written, add_special_tokens=False)["input_ids"]
            actual = _written(run, ids)
            assert (actual.text, actual.finish_reason) == (text, "quote")
            assert closing_quote(tiny_tokenizer.decode(actual.token_ids)) is not None
            assert closing_quote(tiny_tokenizer.decode(actual.token_ids[:-1])) is None
            assert len(actual.log_probs) == len(actual.token_ids)


def test_a_text_without_a_closing_quote(runs, tiny_tokenizer):
    chat, plain = runs
    ids = tiny_tokenizer("no end\nThe", add_special_tokens=False)["input_ids"]
    actual = _written(chat, ids)
    assert (actual.text, actual.finish_reason) == ("no end\nThe", "length")
    actual = _written(plain, ids)  # a line break stops
    assert (actual.text, actual.finish_reason) == ("no end", "stop")
    assert tiny_tokenizer.decode(actual.token_ids) == "no end"


def test_labels_that_hold_the_stop_are_refused(tiny_tokenizer):
    with pytest.raises(
        InterpToolkitError, match=r"label 1 holds '<\|im_end\|>', which ends a label in this soft prompt"
    ):
        SoftPrompt.for_chat(tiny_tokenizer).targets(tiny_tokenizer, ["a", "b <|im_end|> c"])
    with pytest.raises(InterpToolkitError, match=r"label 0 holds '\\n', which ends a label"):
        SoftPrompt.for_text(tiny_tokenizer).targets(tiny_tokenizer, ["two\nlines"])
