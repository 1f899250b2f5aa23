"""Base models, which have no chat template and no token to mark a slot: from reading to the command line."""

import dataclasses
import json

import pytest
import torch
import transformers
import yaml
from conftest import _TEXT, BACKENDS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from interp_toolkit import (
    Adapter,
    InterpToolkitError,
    Site,
    SoftPrompt,
    TrainConfig,
    load_model,
    read_activations,
    self_explain,
    topic_pairs,
    train_adapter,
)
from interp_toolkit.adapters.files import CONFIG_FILE
from interp_toolkit.bridges import describe_grid
from interp_toolkit.chat import prompt_ids, stop_ids
from interp_toolkit.cli import main
from interp_toolkit.contract import Contract, EvidenceThreshold
from interp_toolkit.evaluation import calibrate_threshold, evidence_controls, prompted_descriptions
from interp_toolkit.evaluation.reconstruction import reconstruction_table
from interp_toolkit.models import model_facts
from interp_toolkit.pairs import topic_vectors
from interp_toolkit.runtime import PromptRun, plain_answers, sampled_answers
from interp_toolkit.runtime.texts import TextEnds, WrittenText
from interp_toolkit.soft_prompt import TEXT

END = "<|endoftext|>"
TITLES = ["rivers", "Poland", "a fox", "baseball", "the dog", "history", '12" records', "lazy jumps"] * 3
TITLES = [f"{title} {i // 8}" if i >= 8 else title for i, title in enumerate(TITLES)]
MODELS = [("gpt2", backend) for backend in BACKENDS] + [("gpt_neox", "bridge")]
MODELS.append(pytest.param("gemma2", "bridge", marks=pytest.mark.slow))


def _tokenizer(merged):
    """One special token for everything, as GPT-2 and Pythia have it; perhaps a quote and a line break in one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=[END], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(_TEXT, trainer)
    if merged:
        tokenizer.add_tokens(['"\n'])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END, eos_token=END, unk_token=END)


def _config(name, size):
    ends = dict(vocab_size=size, bos_token_id=0, eos_token_id=0, pad_token_id=0, initializer_range=0.15)
    sizes = dict(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=160
    )
    if name == "gpt2":
        no_dropout = dict(embd_pdrop=0, attn_pdrop=0, resid_pdrop=0)
        return transformers.GPT2Config(**ends, **no_dropout, n_embd=32, n_layer=3, n_head=4, n_positions=160)
    if name == "gpt_neox":
        return transformers.GPTNeoXConfig(**ends, **sizes)
    return transformers.Gemma2Config(**ends, **sizes, num_key_value_heads=2, head_dim=8, query_pre_attn_scalar=8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}
    for seed, name in enumerate(("gpt2", "gpt_neox", "gemma2")):
        torch.manual_seed(seed)
        tokenizer = _tokenizer(merged=name == "gpt_neox")
        made[name] = tmp_path_factory.mktemp(name)
        AutoModelForCausalLM.from_config(_config(name, len(tokenizer))).save_pretrained(made[name])
        tokenizer.save_pretrained(made[name])
    return made


@pytest.fixture(scope="module")
def base(folders):
    loaded = {}

    def get(name="gpt2", backend="bridge"):
        if (name, backend) not in loaded:
            loaded[name, backend] = load_model(folders[name], backend=backend, dtype="float32")
        return loaded[name, backend]

    return get


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_TOOLKIT_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(("name", "backend"), MODELS)
def test_a_text_begins_with_one_beginning_token(base, name, backend):
    model = base(name, backend)
    tokenizer = model.tokenizer
    words = tokenizer("a fox", add_special_tokens=False)["input_ids"]
    for chat in (None, False):
        assert prompt_ids(tokenizer, ["a fox", f"{END}a fox"], chat) == [[0, *words]] * 2
    read = read_activations(model, ["a fox"], [1], "all")
    assert torch.equal(read.vectors, read_activations(model, ["a fox"], [1], "all", chat=False).vectors)
    assert read.table.token.tolist()[0] == END
    with pytest.raises(InterpToolkitError, match="no chat template; give plain text with chat=False"):
        read_activations(model, ["a fox"], [1], chat=True)
    with pytest.raises(InterpToolkitError, match="no chat template to write messages with"):
        read_activations(model, [[{"role": "user", "content": "x"}]], [1])
    assert stop_ids(model) == (0,)


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox"])
def test_slots_are_known_by_position(base, name):
    tokenizer = base(name).tokenizer
    for tokens in (1, 3):
        prompt = SoftPrompt.for_tokenizer(tokenizer, tokens)
        assert prompt == SoftPrompt.for_text(tokenizer, tokens=tokens)
        read = prompt.tokens(tokenizer)
        before = tokenizer(END + TEXT.split("{slot}")[0], add_special_tokens=False)["input_ids"]
        assert read.prefix == tuple(before)
        assert read.slots == tuple(range(len(before), len(before) + tokens))
        assert tokenizer.decode(read.ids[: read.slots[0]]) == END + TEXT.split("{slot}")[0]
        assert tokenizer.decode(read.ids[read.slots[-1] + 1 :]) == '" is "'
        assert SoftPrompt.from_dict(json.loads(json.dumps(prompt.to_dict()))) == prompt
    chat = SoftPrompt.for_chat(tokenizer)  # a question without a template
    assert chat.marker == "{slot}"
    assert len(chat.tokens(tokenizer).slots) == 2
    assert SoftPrompt.for_text(tokenizer, f'{END}a: "b"\n{{slot}}: "').template.count(END) == 1
    with pytest.raises(InterpToolkitError, match="without a slot: expected {slot} in the text, got 'a'"):
        SoftPrompt.for_text(tokenizer, "a")
    with pytest.raises(InterpToolkitError, match="expected a stop such as a line break"):
        SoftPrompt.for_text(tokenizer, stop="")


def test_a_stop_that_shares_a_token_with_the_quote(base):
    model = base("gpt_neox")  # as in Llama 3's vocabulary
    run = PromptRun(model, SoftPrompt.for_text(model.tokenizer))
    (target,) = run.soft_prompt.targets(model.tokenizer, ['12" fox'])
    assert model.tokenizer.convert_ids_to_tokens(target[-1]) == '"\n'
    text = WrittenText(TextEnds.from_prompt(run.model.tokenizer, stop_ids(run.model), run.soft_prompt.stop, "quote"))
    going_on = [text.add(token, -1.0) for token in target]
    assert going_on == [True] * (len(target) - 1) + [False]
    actual = text.generation()
    assert (actual.text, actual.token_ids, actual.finish_reason) == ('12" fox', tuple(target), "quote")


@pytest.mark.parametrize(("name", "backend"), MODELS)
def test_from_reading_to_describing(base, tmp_path, name, backend):
    model = base(name, backend)
    splits = ["val" if i % 6 == 0 else "train" for i in range(len(TITLES))]
    pairs = topic_pairs(model, TITLES, 1, splits=splits)
    raw = read_activations(model, [f"Tell me about {title}." for title in TITLES], [1], chat=False)
    assert set(raw.table.token) == {"."}
    assert torch.allclose(pairs.vectors + pairs.mean, raw.vectors, atol=1e-5)
    adapter = Adapter.create("scalar_affine_low_rank", 32, rank=4, init_scale=6.0)
    config = TrainConfig(epochs=4, batch_size=10, lr=0.1, eval_every=4, val_examples=4, log_samples=0)
    result = train_adapter(model, pairs, adapter, config, folder=tmp_path / "run", progress=False)
    losses = result.history["train_loss"]
    assert losses.iloc[-1] < losses.iloc[0]
    adapter = result.adapter
    contract = adapter.contract
    assert contract.chat is False
    assert contract.soft_prompt == SoftPrompt.for_text(model.tokenizer)
    # Evidence, threshold, a file and back.
    controls = evidence_controls(model, adapter, pairs.vectors)
    adapter.contract = dataclasses.replace(contract, threshold=calibrate_threshold(controls))
    adapter.save_pretrained(tmp_path / "adapter")
    loaded = Adapter.from_pretrained(tmp_path / "adapter")
    assert (loaded.contract.chat, loaded.contract.soft_prompt) == (False, contract.soft_prompt)
    text = self_explain(TITLES[:3], model=model, adapter=loaded, include_null=True)
    by_hand = self_explain(
        [f"{title}" for title in TITLES[:3]], model=model, adapter=adapter, chat=False, include_null=True
    )
    assert text.to_df().equals(by_hand.to_df())
    assert all(row.above_threshold is not None for row in text if row.evidence == row.evidence)
    assert abs(text[-1].evidence) < 1e-4 or text[-1].evidence != text[-1].evidence


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox"])
def test_evaluations_read_as_the_contract_says(base, name):
    model = base(name)
    adapter = _adapter(model)
    vectors = topic_vectors(model, TITLES[:4], 1)
    table = reconstruction_table(model, adapter, vectors, ["rivers", "Poland", "a fox", "x"], titles=TITLES[:4])
    assert table["title"].tolist() == pytest.approx([1.0] * 4, abs=1e-5)
    grid = describe_grid(model, ["The capital of Poland is", "A fox"], adapter, samples=1)
    assert len(grid.failed) == 0
    result = prompted_descriptions(model, ["Poland"], question="{title} is", max_new_tokens=3)
    assert result[0].text == plain_answers(model, ["Poland is"], max_new_tokens=3)[0]


@pytest.mark.parametrize(("name", "backend"), MODELS)
def test_answers_go_on_with_the_text(base, name, backend):
    model = base(name, backend)
    prompts = ["Tell me about", "a", "A quick brown fox"]
    answers = plain_answers(model, prompts, max_new_tokens=5)
    for prompt, answer in zip(prompts, answers):
        ids = prompt_ids(model.tokenizer, [prompt])[0]
        written = []
        for _ in range(5):
            last = read_activations(model, [ids + written], [2]).vectors
            hidden = model.ln_final(last[None]) if hasattr(model, "ln_final") else last[None]
            logits = model.unembed(hidden)
            token = int(logits.flatten().argmax())
            if token == 0:
                break
            written.append(token)
        assert answer == model.tokenizer.decode(written).strip()
    assert plain_answers(model, prompts, max_new_tokens=5, chat=False) == answers
    drawn = sampled_answers(model, prompts, samples=2, max_new_tokens=4)
    assert [len(row) for row in drawn] == [2, 2, 2]
    with pytest.raises(InterpToolkitError, match="no chat template"):
        plain_answers(model, prompts, chat=True)


def _adapter(model, chat=False, site=1):
    made = Adapter.create("scalar_affine", 32, init_scale=3.0).requires_grad_(False)
    prompt = SoftPrompt.for_tokenizer(model.tokenizer)
    made.contract = Contract.from_facts(model_facts(model), Site.after(site), prompt, None, True, chat)
    return made


def test_a_chat_model_reads_plain_text_where_the_adapter_was_trained_so(tiny):
    model = tiny()
    pairs = topic_pairs(model, ["rivers", "Poland", "a fox"], 2, splits=["train", "train", "val"], chat=False)
    expected = read_activations(model, ["Tell me about rivers."], [2], chat=False).vectors
    assert torch.allclose(pairs.vectors[:1] + pairs.mean, expected, atol=1e-5)
    assert not torch.allclose(topic_vectors(model, ["rivers"], 2), expected, atol=1e-2)
    plain, chat, silent = (_adapter(model, chat, site=2) for chat in (False, True, None))

    def rows(adapter, **settings):
        adapter.contract = dataclasses.replace(adapter.contract, threshold=EvidenceThreshold(-99.0, 0.05, 20, 0))
        (row,) = self_explain("rivers", model=model, adapter=adapter, **settings)
        return row.log_prob, row.above_threshold

    assert rows(plain) == rows(plain, chat=False)
    assert rows(chat) == rows(chat, chat=True) == rows(silent) == rows(silent, chat=True)
    assert rows(plain)[0] != rows(chat)[0]
    # Read in the other way, the threshold says nothing.
    assert rows(plain)[1] is rows(chat)[1] is True
    assert rows(plain, chat=True) == (rows(chat)[0], None)
    assert rows(silent, chat=False) == (rows(plain)[0], None)
    with pytest.raises(InterpToolkitError, match="chat would have no effect: vectors are taken as they are"):
        self_explain(pairs.vectors, model=model, adapter=plain, chat=False)


def test_contracts_of_before_do_not_say_how_prompts_were_read(base, tmp_path):
    model = base()
    adapter = _adapter(model)
    adapter.save_pretrained(tmp_path / "adapter")
    path = tmp_path / "adapter" / CONFIG_FILE
    described = json.loads(path.read_text())
    assert described["contract"].pop("chat") is False
    del described["sha256"]  # which files of before do not have either
    path.write_text(json.dumps(described))
    assert Adapter.from_pretrained(tmp_path / "adapter").contract.chat is None
    described["contract"]["chat"] = "no"
    path.write_text(json.dumps(described))
    with pytest.raises(InterpToolkitError, match="expected chat of true, false or null in the contract, got 'no'"):
        Adapter.from_pretrained(tmp_path / "adapter")


def test_an_adapter_of_a_chat_model_says_that_its_base_has_no_template(tiny, folders):
    model = load_model(folders["gpt2"], dtype="float32")
    adapter = _adapter(model, chat=True)
    with pytest.raises(InterpToolkitError, match="no chat template; give plain text with chat=False"):
        self_explain("rivers", model=model, adapter=adapter)
    assert len(self_explain("rivers", model=model, adapter=adapter, chat=False)) == 1


def test_the_command_line(folders, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "titles.txt").write_text("\n".join(f"Topic {i}" for i in range(20)))
    described = dict(
        model=str(folders["gpt2"]),
        topics=dict(titles="titles.txt", site="blocks.1.hook_resid_post", val=4, chat=False),
        adapter=dict(kind="scalar_affine", init_scale=2.0),
        soft_prompt=dict(text='puppy: "a young dog"\n{slot}: "'),
        training=dict(batch_size=4, max_steps=2),
        output="trained",
    )
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(described))
    assert main(["train", "run.yaml"]) == 0
    assert main(["info", "trained/best", "--json"]) == 0
    out = capsys.readouterr().out
    contract = json.loads(out[out.index("{") :])["contract"]
    assert contract["chat"] is False
    assert contract["soft_prompt"]["template"] == END + 'puppy: "a young dog"\n{slot}: "'
    command = ["explain", "Topic 3", "--model", str(folders["gpt2"]), "--adapter", "trained/best", "--json"]
    assert main(command) == 0
    first = json.loads(capsys.readouterr().out)
    assert main([*command, "--no-chat"]) == 0
    assert json.loads(capsys.readouterr().out) == first
    described["soft_prompt"]["question"] = "What is {slot}?"
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(described))
    assert main(["train", "run.yaml"]) == 2
    assert "expected one of 'preset', 'text', and 'question' with 'answer'" in capsys.readouterr().err
