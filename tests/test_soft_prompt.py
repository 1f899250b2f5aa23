import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from interp_toolkit import InterpToolkitError, Site, SoftPrompt

# How Llama 3 cuts text into words before it looks for tokens.
_LLAMA_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _word_tokenizer(specials):
    """Llama 3's pre-tokenizer with each word a token: every word of the templates is one in the real vocabulary."""
    words = ["user", "assistant", "\n\n", "\n", "What", " is", " the", " meaning", " of", ' "', '"?', "The", '"', "?"]
    tokenizer = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate([*specials, "<unk>", *words])}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_LLAMA_WORDS), behavior="isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=specials[0], unk_token="<unk>", additional_special_tokens=specials[1:]
    )


def test_the_llama_preset_is_26_tokens_with_slots_at_11_and_22():
    prompt = SoftPrompt.preset("llama-3.1")
    assert prompt.template == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n"
        'What is the meaning of "<|reserved_special_token_0|>"?<|eot_id|>'
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
        'The meaning of "<|reserved_special_token_0|>" is "'
    )
    specials = [
        "<|begin_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
        "<|reserved_special_token_0|>",
    ]
    tokenizer = _word_tokenizer(specials)
    tokens = prompt.tokens(tokenizer)
    assert tokenizer.unk_token_id not in tokens.ids
    assert (len(tokens.ids), tokens.slots) == (26, (11, 22))
    assert prompt.stop == "<|eot_id|>"


def test_the_qwen_preset():
    prompt = SoftPrompt.preset("qwen2.5")
    assert prompt.template == (
        '<|im_start|>user\nWhat is the meaning of "<|fim_pad|>"?<|im_end|>\n'
        '<|im_start|>assistant\nThe meaning of "<|fim_pad|>" is "'
    )
    tokens = prompt.tokens(_word_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|fim_pad|>"]))
    assert len(tokens.slots) == 2
    assert prompt.stop == "<|im_end|>"


def test_the_default_is_the_papers_wording_in_the_models_own_template(smollm):
    prompt = SoftPrompt.for_chat(smollm.tokenizer)
    asked = [{"role": "user", "content": f'What is the meaning of "{prompt.marker}"?'}]
    rendered = smollm.tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert prompt.template == rendered + f'The meaning of "{prompt.marker}" is "'
    assert prompt.stop == "<|im_end|>"
    tokens = prompt.tokens(smollm.tokenizer)
    assert smollm.tokenizer.decode(tokens.ids) == prompt.template
    assert [smollm.tokenizer.convert_ids_to_tokens(tokens.ids[i]) for i in tokens.slots] == [prompt.marker] * 2
    assert tokens.prefix + tokens.tail == tokens.ids
    assert [tokens.tail[i] for i in tokens.tail_slots] == [tokens.ids[i] for i in tokens.slots]


def test_targets_are_label_quote_stop_tokenised_alone(smollm):
    tokenizer = smollm.tokenizer
    prompt = SoftPrompt.for_chat(tokenizer)
    (target,) = prompt.targets(tokenizer, ["  the sea \n"])
    assert tokenizer.decode(target) == 'the sea"<|im_end|>'
    assert target == tokenizer('the sea"<|im_end|>', add_special_tokens=False)["input_ids"]
    with pytest.raises(InterpToolkitError, match="label 1 is empty"):
        prompt.targets(tokenizer, ["a", "  "])


def test_other_words_and_sites(tiny_tokenizer):
    prompt = SoftPrompt.for_chat(tiny_tokenizer, question="Say it.", answer="It is {slot}: ")
    assert len(prompt.tokens(tiny_tokenizer).slots) == 1
    moved = prompt.at("blocks.2.hook_resid_pre", mode="add")
    assert (moved.site, moved.mode, moved.template) == (Site.parse("blocks.2.hook_resid_pre"), "add", prompt.template)
    assert SoftPrompt.from_dict(moved.to_dict()) == moved


def test_a_model_without_a_chat_template_is_asked_plainly(tiny_tokenizer):
    import copy

    plain = copy.deepcopy(tiny_tokenizer)
    plain.chat_template = None
    prompt = SoftPrompt.for_chat(plain)
    assert prompt.template.startswith('<|bos|>What is the meaning of "')
    assert prompt.stop == "<|eos|>"


def test_prompts_that_cannot_work_are_refused(tiny_tokenizer, unchecked):
    with pytest.raises(InterpToolkitError, match="without a slot: expected {slot}"):
        SoftPrompt.for_chat(tiny_tokenizer, question="What?", answer="This is")
    with pytest.raises(InterpToolkitError, match="has no slot: expected '<|reserved_0|>' at least once"):
        SoftPrompt("What is it?", "<|reserved_0|>", "<|eos|>")
    with pytest.raises(
        InterpToolkitError, match=r"'@slot@' is \d+ tokens in this model's vocabulary, expected one; choose"
    ):
        SoftPrompt("What is @slot@?", "@slot@", "<|eos|>").tokens(tiny_tokenizer)
    with pytest.raises(InterpToolkitError, match=r"'a' does not stay one token inside .* \(3 in the text, \d among"):
        SoftPrompt("Tell a about that", "a", "<|eos|>").tokens(tiny_tokenizer)
    with pytest.raises(InterpToolkitError, match=r"two beginning-of-sequence tokens \('<\|bos\|>'\); take one out"):
        SoftPrompt("<|bos|><|bos|>What is <|reserved_0|>?", "<|reserved_0|>", "<|eos|>").tokens(tiny_tokenizer)
    with pytest.raises(InterpToolkitError, match="begins with its slot"):
        SoftPrompt("<|reserved_0|>?", "<|reserved_0|>", "<|eos|>").tokens(tiny_tokenizer)
    with pytest.raises(InterpToolkitError, match="expected mode 'replace' or 'add', got 'multiply'"):
        SoftPrompt("<|reserved_0|>", "<|reserved_0|>", "<|eos|>", mode="multiply")
    with pytest.raises(InterpToolkitError, match=r"preset of llama-3\.1, qwen2\.5, got 'gpt-9'"):
        SoftPrompt.preset("gpt-9")
