"""Chat templates of every kind: what the user says stands in what the model reads, the same every day."""

import copy
import datetime

import pytest
import torch

from interp_toolkit import InterpToolkitError, SoftPrompt, load_model, read_activations
from interp_toolkit.chat import DATE, end_of_turn, prompt_ids, render
from interp_toolkit.pairs import topic_vectors
from interp_toolkit.runtime import PromptRun

_ASK = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


def _loop(content):
    """A template that writes each message so."""
    turn = "<|im_start|>{{ m['role'] }}\n" + content + "<|im_end|>\n"
    return "{% for m in messages %}" + turn + "{% endfor %}" + _ASK


STRINGS = _loop("{{ m['content'] | trim }}")
PARTS = _loop("{% for part in m['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}")
FILTERED = _loop("{{ (m['content'] | selectattr('type', 'equalto', 'text') | list | first)['text'] }}")
BOTH = _loop(
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for part in m['content'] %}{{ part['text'] }}"
    "{% endfor %}{% endif %}"
)
DROPPED = _loop("{{ m['text'] }}")
UPPER = _loop("{{ m['content'] | upper }}")
DATED = (
    "{% if not date_string is defined %}{% if strftime_now is defined %}"
    "{% set date_string = strftime_now('%d %b %Y') %}{% else %}{% set date_string = 'never' %}{% endif %}{% endif %}"
    "<|im_start|>system\nToday Date: {{ date_string }}<|im_end|>\n" + STRINGS
)
SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}{{ raise_exception('this model wants a system turn') }}{% endif %}"
    + STRINGS
)
THINKS = STRINGS.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")


@pytest.fixture
def tokenizer_of(tiny_tokenizer):
    def get(template):
        tokenizer = copy.deepcopy(tiny_tokenizer)
        tokenizer.chat_template = template
        return tokenizer

    return get


@pytest.mark.parametrize(
    "template", [STRINGS, PARTS, FILTERED, BOTH, DATED], ids=["strings", "parts", "filtered", "both", "dated"]
)
def test_what_the_user_says_stands_in_the_rendering(tokenizer_of, template):
    tokenizer = tokenizer_of(template)
    for text in ("fox", "user", "a", " spaced "):
        assert f"user\n{text.strip()}<" in "".join(render(tokenizer, [{"role": "user", "content": text}]).split(" "))
    talk = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    assert all(
        text in render(tokenizer, [*talk, {"role": "user", "content": "three"}]) for text in ("one", "two", "three")
    )
    prompt = SoftPrompt.for_chat(tokenizer)
    assert len(prompt.tokens(tokenizer).slots) == 2
    assert 'What is the meaning of "' in prompt.template
    assert end_of_turn(tokenizer) == prompt.stop == "<|im_end|>"


@pytest.mark.parametrize("template", [DROPPED, UPPER], ids=["dropped", "changed"])
def test_a_template_that_drops_or_changes_what_is_said_is_refused(tokenizer_of, template):
    tokenizer = tokenizer_of(template)
    for call in (SoftPrompt.for_chat, lambda t: prompt_ids(t, ["Tell me about foxes."])):
        with pytest.raises(InterpToolkitError, match="leaves out or changes what the user says: '.*' does not stand"):
            call(tokenizer)
    assert end_of_turn(tokenizer) == "<|eos|>"  # not the template's first token
    assert prompt_ids(tokenizer, ["Tell me about foxes."], chat=False)


def test_parts_that_are_given_are_rendered(tokenizer_of):
    text = [{"role": "user", "content": [{"type": "text", "text": "a fox"}]}]
    assert "a fox" in render(tokenizer_of(PARTS), text)
    with pytest.raises(InterpToolkitError, match="leaves out or changes|refuses these messages"):
        render(tokenizer_of(UPPER), text)


class _Tomorrow(datetime.datetime):
    day_now = 1

    @classmethod
    def now(cls, tz=None):
        return cls(2031, 5, cls.day_now, tzinfo=tz)


def test_a_prompt_reads_the_same_tomorrow(tiny, monkeypatch):
    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", _Tomorrow)
    model = tiny()
    tokenizer = model.tokenizer
    monkeypatch.setattr(tokenizer, "chat_template", DATED)
    assert "01 May 2031" in tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    seen = []
    for day in (1, 2):
        monkeypatch.setattr(_Tomorrow, "day_now", day)
        read = read_activations(model, ["foxes"], [2]).vectors
        seen.append((read, topic_vectors(model, ["foxes"], 2), SoftPrompt.for_chat(tokenizer)))
    assert torch.equal(seen[0][0], seen[1][0])
    assert torch.equal(seen[0][1], seen[1][1])
    assert seen[0][2] == seen[1][2]
    assert f"Today Date: {DATE}<|im_end|>" in seen[0][2].template


@pytest.mark.parametrize("form", ["%d %b %Y", "%B %d, %Y", "%Y-%m-%d", "%A, %-d %B %Y", "%H:%M:%S", "%j"])
def test_every_form_of_the_date_is_pinned(tokenizer_of, form):
    tokenizer = tokenizer_of("{{ strftime_now('" + form + "') }}|" + STRINGS)
    expected = datetime.datetime(2024, 7, 26).strftime(form)
    assert render(tokenizer, [{"role": "user", "content": "x"}]).startswith(expected + "|<|im_start|>user")
    function = tokenizer_of(
        "{%- set today = strftime_now('"
        + form
        + "') -%}\n{%- macro f() %}{{ today }}{% endmacro %}{{ f() }}|"
        + STRINGS
    )
    assert render(function, [{"role": "user", "content": "x"}]).startswith(expected + "|")


def test_a_template_that_asks_for_a_system_turn(tiny, monkeypatch):
    model = tiny()
    tokenizer = model.tokenizer
    monkeypatch.setattr(tokenizer, "chat_template", SYSTEM)
    message = r"refuses these messages: this model wants a system turn; where it asks for a system turn, give messages"
    with pytest.raises(InterpToolkitError, match=message):
        SoftPrompt.for_chat(tokenizer)
    with pytest.raises(InterpToolkitError, match=message):
        read_activations(model, ["foxes"], [2])
    assert end_of_turn(tokenizer) == "<|im_end|>"
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "foxes"}]
    assert len(read_activations(model, [talk], [2])) == 1
    assert len(read_activations(model, ["foxes"], [2], chat=False)) == 1


def test_thoughts_that_a_template_begins_are_ended_before_the_answer(tokenizer_of):
    prompt = SoftPrompt.for_chat(tokenizer_of(THINKS))
    assert f'assistant\n<think>\n\n</think>\n\nThe meaning of "{prompt.marker}" is "' in prompt.template
    closed = THINKS.replace("<think>\n", "<think>\n\n</think>\n\n")
    assert SoftPrompt.for_chat(tokenizer_of(closed)).template.count("</think>") == 1
    tokenizer = tokenizer_of(_loop("{{ m['content'].split('</think>')[-1] | trim }}"))
    talk = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "<think>y</think> z"}]
    assert "z" in render(tokenizer, talk, generation_prompt=False)


def test_the_marker_has_a_row_in_the_embedding(checkpoints):
    model = load_model(checkpoints["llama"], dtype="float32")
    tokenizer = model.tokenizer
    rows = len(tokenizer)
    tokenizer.add_special_tokens({"pad_token": "<|unused_pad|>"})
    assert tokenizer.pad_token_id == rows
    # Without a token that is made to mean nothing, the slot is known by its position.
    chosen = SoftPrompt.for_chat(tokenizer, 'Say "<|reserved_0|>" of "{slot}"', vocabulary=rows)
    assert chosen.marker == "{slot}"
    tokens = PromptRun(model, chosen).tokens
    assert len(tokens.slots) == 2
    assert max(tokens.ids) < rows
    taken = SoftPrompt.for_chat(tokenizer, 'Say "<|reserved_0|>" of "{slot}"')
    assert taken.marker == "<|unused_pad|>"
    with pytest.raises(InterpToolkitError, match=f"the soft prompt holds token id {rows}, and .* has {rows} rows"):
        PromptRun(model, taken)
    with pytest.raises(
        InterpToolkitError, match=f"prompt 1 holds token id {rows}, and the model's embedding has {rows}"
    ):
        read_activations(model, ["fox", "a <|unused_pad|>"], [2])
    with pytest.raises(InterpToolkitError, match=r"prompt 0 is empty or of an unknown kind; .* got \[1, -1, 2\]"):
        read_activations(model, [[1, -1, 2]], [2])


def test_an_added_pad_token_is_no_marker(tiny_tokenizer):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    prompt = SoftPrompt.for_chat(tokenizer, 'Say "<|reserved_0|>" of "{slot}"')
    assert prompt.marker == "{slot}"
    with_marker = SoftPrompt.for_chat(tiny_tokenizer, 'Say it of "{slot}"').tokens(tiny_tokenizer)
    by_position = SoftPrompt.for_chat(tiny_tokenizer, 'Say it of "{slot}"', marker="{slot}").tokens(tiny_tokenizer)
    assert by_position.slots == with_marker.slots
    assert by_position.prefix == with_marker.prefix
    assert len(by_position.ids) == len(with_marker.ids)
