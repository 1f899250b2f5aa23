"""Engines that run a model elsewhere: the same numbers as here, and a clear error for whatever is not the same."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from fake_vllm import FakeVllm, dies, garbage, hangs, running, status
from tokenizers import Tokenizer, decoders, models
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from interp_toolkit import Adapter, ContractError, InterpToolkitError, Sampling, Site, load_model, self_explain
from interp_toolkit.adapters import untrained_adapter
from interp_toolkit.bulk import describe_file, read_descriptions
from interp_toolkit.contract import Contract
from interp_toolkit.engines import LocalEngine, ServedEngine, as_engine, require_same_model
from interp_toolkit.engines.model_files import OutsideModel
from interp_toolkit.engines.server import server_command, tokenizer_with_placeholder
from interp_toolkit.errors import FileFormatError
from interp_toolkit.evaluation import control_losses
from interp_toolkit.models import model_facts
from interp_toolkit.probe import parse_probe
from interp_toolkit.runtime import make_probe, score
from interp_toolkit.runtime.prefix import PromptRun
from interp_toolkit.soft_prompt import SoftPrompt


@pytest.fixture(params=["llama", "gemma2"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def letters(tiny_tokenizer):
    """A tokenizer with a token a letter, by which every text has one reading."""
    specials = ["<|bos|>", "<|eos|>", "<|im_start|>", "<|im_end|>", "<|reserved_0|>"]
    characters = {chr(i): i - 32 for i in range(32, 127)} | {"\n": 95}
    tokenizer = Tokenizer(models.BPE(characters, []))
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|bos|>",
        eos_token="<|eos|>",
        additional_special_tokens=specials[2:],
        chat_template=tiny_tokenizer.chat_template,
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory, letters):
    """Checkpoints of tiny models that read and write letters, by kind."""
    out = {}
    sizes = dict(vocab_size=len(letters), bos_token_id=96, eos_token_id=97, pad_token_id=97, initializer_range=0.15)
    sizes |= dict(hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4)
    sizes |= dict(num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=False)
    more = {"llama": {}, "gemma2": dict(head_dim=8, query_pre_attn_scalar=8, sliding_window=8)}
    for kind, settings in more.items():
        torch.manual_seed(3)
        out[kind] = tmp_path_factory.mktemp(kind)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes, **settings))
        with torch.no_grad():  # texts of letters, which end: these three special tokens are not written
            model.lm_head.weight[[96, 98, 100]] = 0
        model.save_pretrained(out[kind])
        letters.save_pretrained(out[kind])
    return out


@pytest.fixture(scope="module")
def local(folders):
    """local(kind): the model in this process."""
    loaded = {}

    def get(kind):
        if kind not in loaded:
            loaded[kind] = load_model(folders[kind], dtype="float32")
        return loaded[kind]

    return get


def _plain(folder):
    """The model in Hugging Face's own class."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval().requires_grad_(False)


@pytest.fixture
def server(kind, folders, tmp_path, monkeypatch):
    """A server of the model, in the tokenizer that `serve-model` gives it."""
    monkeypatch.setattr("interp_toolkit.engines.server.cache_folder", lambda: tmp_path / "cache")
    folder = tokenizer_with_placeholder(OutsideModel.read(str(folders[kind])))
    return FakeVllm(_plain(folders[kind]), AutoTokenizer.from_pretrained(folder), folders[kind])


@pytest.fixture
def url(server):
    with running(server) as address:
        yield address


@pytest.fixture
def engine(url):
    return ServedEngine(url, dtype="float32")


@pytest.fixture
def adapter(kind, local, letters):
    made = Adapter.create("scalar_affine", 32, init_scale=3.0).requires_grad_(False)
    made.bias.copy_(torch.randn(32, generator=torch.Generator().manual_seed(1)))
    prompt = SoftPrompt.for_chat(letters)
    made.contract = Contract.from_facts(model_facts(local(kind)), Site.after(2), prompt, torch.zeros(32), True)
    made.contract = dataclasses.replace(made.contract, probe=make_probe(local(kind), made))
    return made


def _assert_same(one, other):
    one, other = one.to_df(), other.to_df()
    assert one["description"].tolist() == other["description"].tolist()
    for column in ("log_prob", "evidence"):
        np.testing.assert_allclose(one[column], other[column], atol=1e-4)


def test_a_server_gives_what_the_model_gives_here(kind, engine, local, adapter, random_vectors):
    vectors = random_vectors(5)
    _assert_same(
        self_explain(vectors, model=engine, adapter=adapter, include_null=True),
        self_explain(vectors, model=local(kind), adapter=adapter, include_null=True),
    )
    labels = adapter.contract.soft_prompt.targets(engine.tokenizer, ["a fox", "Poland", "the history of rivers", "x"])
    run, tokens = PromptRun(local(kind), adapter.contract.soft_prompt), adapter(vectors)
    rows = [0, 0, 3, 4]
    here, there = score(run, tokens, labels, rows), engine.score(run.soft_prompt, tokens, labels, rows)
    assert here.lengths == there.lengths
    assert torch.allclose(here.log_probs, there.log_probs, atol=1e-4)


def test_the_address_alone_is_a_model(url, local, kind, adapter, random_vectors):
    _assert_same(
        self_explain(random_vectors(2), model=url, adapter=adapter),
        self_explain(random_vectors(2), model=local(kind), adapter=adapter),
    )
    assert as_engine(f"{url}/v1/").url == url


@pytest.mark.parametrize("kind", ["llama"], indirect=True)
def test_texts_end_where_they_end_here(engine, local, kind, adapter, random_vectors):
    here, prompt, tokens = LocalEngine(local(kind)), adapter.contract.soft_prompt, adapter(random_vectors(6))
    for until in ("quote", "stop", "length"):
        texts = [e.generate(prompt, tokens, until=until, max_new_tokens=9) for e in (here, engine)]
        for (one,), (other,) in zip(*texts):
            assert (one.text, one.token_ids, one.finish_reason) == (other.text, other.token_ids, other.finish_reason)
            np.testing.assert_allclose(one.log_probs, other.log_probs, atol=1e-4)
    plain = SoftPrompt.for_text(engine.tokenizer, stop="e")
    texts = [e.generate(plain, tokens, max_new_tokens=12) for e in (here, engine)]
    assert [row[0].token_ids for row in texts[0]] == [row[0].token_ids for row in texts[1]]


@pytest.mark.parametrize("kind", ["llama"], indirect=True)
def test_samples_depend_on_the_seed_and_the_row_alone(engine, adapter, random_vectors, server):
    vectors = random_vectors(3)
    draws = Sampling(n=2, temperature=1.5, seed=3, max_new_tokens=6)

    def texts(rows, sampling=draws):
        table = self_explain(rows, model=engine, adapter=adapter, sampling=sampling).to_df()
        return table["description"].tolist()

    all_rows = texts(vectors)
    assert len(set(all_rows)) > 3
    assert texts(vectors) == all_rows
    assert texts(vectors, dataclasses.replace(draws, seed=4)) != all_rows
    assert texts(vectors.repeat(2, 1))[:6] == all_rows
    drawn = [body for body in server.bodies if body.get("n") == 2]
    assert all(0 <= body["seed"] < 2**31 for body in drawn)
    # What the folder's generation settings say of sampling would change texts behind the caller's back.
    neutral = dict(top_k=0, min_p=0.0, repetition_penalty=1.0, presence_penalty=0.0, frequency_penalty=0.0)
    assert all(body.items() >= neutral.items() for body in drawn)


@pytest.mark.parametrize("kind", ["llama"], indirect=True)
def test_only_soft_tokens_travel_and_equal_texts_once(engine, adapter, random_vectors, server):
    server.bodies.clear()
    self_explain(random_vectors(1).repeat(8, 1), model=engine, adapter=adapter)
    # The probe's texts, one text written, and its log-probabilities given the vector and given nothing.
    assert len(server.bodies) == 2 * len(adapter.contract.probe.texts) + 3
    parts = server.bodies[-1]["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["text", "prompt_embeds"] * 2 + ["text"]
    assert max(len(part.get("data", "")) for part in parts) < 4000


@pytest.mark.parametrize("kind", ["llama"], indirect=True)
def test_so_many_requests_at_once_and_no_more(url, server, adapter, random_vectors):
    self_explain(random_vectors(20), model=ServedEngine(url, in_flight=3), adapter=adapter)
    assert 1 < server.most <= 3


@pytest.mark.parametrize("kind", ["llama"], indirect=True)
def test_what_passes_is_tried_again(engine, server, adapter, random_vectors, local, kind):
    expected = self_explain(random_vectors(4), model=local(kind), adapter=adapter)
    require_same_model(engine, adapter)
    server.faults += [status(500), dies, status(429), dies, status(503)]
    _assert_same(self_explain(random_vectors(4), model=engine, adapter=adapter), expected)


@pytest.mark.parametrize("kind", ["llama"], indirect=True)
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            status(400, "hidden_size 64 does not match"),
            "the server said 400: .*hidden_size 64.*the server's own output",
        ),
        (status(400, "You must set `--enable-prompt-embeds`"), "start it with: interp-toolkit serve-model MODEL"),
        (status(404), "start a vLLM server there"),
        (garbage(), "expected answers of vLLM's API .* got one without"),
        (garbage(b"{}"), "expected answers of vLLM's API .* got one without 'prompt_token_ids'"),
        (garbage(b'{"prompt_token_ids": [1, 2], "choices": []}'), "reads other tokens than .* tokenizer gives"),
    ],
)
def test_an_answer_that_cannot_be_used_is_said(engine, server, adapter, random_vectors, fault, message):
    require_same_model(engine, adapter)
    server.faults.append(fault)
    with pytest.raises(InterpToolkitError, match=message):
        self_explain(random_vectors(1), model=engine, adapter=adapter)


@pytest.mark.parametrize("kind", ["llama"], indirect=True)
@pytest.mark.parametrize("fault", [status(500), dies, hangs(2.0)], ids=["500", "dies", "hangs"])
def test_a_server_that_stays_silent_ends_the_work(url, server, adapter, random_vectors, fault):
    engine = ServedEngine(url, timeout=0.2, retries=1)
    with running(server) as _:
        server.faults += [fault] * 40
        with pytest.raises(InterpToolkitError, match="stopped answering: .*asked 2 times.*give the same command again"):
            self_explain(random_vectors(2), model=engine, adapter=adapter)


@pytest.mark.parametrize("kind", ["llama"], indirect=True)
def test_a_server_that_is_gone(server, adapter, random_vectors):
    with running(server) as address:
        engine = ServedEngine(address, retries=0)
    with pytest.raises(InterpToolkitError, match="cannot reach .*is the server running"):
        self_explain(random_vectors(2), model=engine, adapter=adapter)
    with pytest.raises(InterpToolkitError, match="expected the address of a server"):
        ServedEngine("localhost:8000")


@pytest.mark.parametrize("kind", ["llama"], indirect=True)
def test_a_key_is_sent_and_a_wrong_one_refused(server, folders, monkeypatch):
    server.key = "secret"
    with running(server) as address:
        with pytest.raises(InterpToolkitError, match="said 401.*VLLM_API_KEY") as error:
            ServedEngine(address, api_key="wrong")
        assert "wrong" not in str(error.value)
        monkeypatch.setenv("VLLM_API_KEY", "secret")
        assert ServedEngine(address).facts.model_id == str(folders["llama"])


@pytest.mark.parametrize("kind", ["llama"], indirect=True)
def test_a_request_that_would_end_the_server_is_never_sent(kind, folders, monkeypatch):
    tokenizer = AutoTokenizer.from_pretrained(folders[kind])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<prompt_embeds>"]})
    server = FakeVllm(_plain(folders[kind]), tokenizer, folders[kind])
    answer = server.answer

    def guarded(body):
        assert "prompt_logprobs" not in body
        return answer(body)

    # Hugging Face's class would fail on the id behind the last row, which vLLM takes until log-probabilities are asked.
    monkeypatch.setattr(server, "answer", lambda body: dict(prompt_token_ids=[*tokenizer("a")["input_ids"], 10**6]))
    with running(server) as address, pytest.raises(InterpToolkitError, match="would end the server; start it with"):
        ServedEngine(address)
    assert [body for body in server.bodies if "prompt_logprobs" in body] == []
    assert guarded


@pytest.mark.parametrize("kind", ["llama"], indirect=True)
def test_a_server_of_another_model_dtype_or_template_is_refused(
    engine, server, adapter, random_vectors, local, kind, folders
):
    table = self_explain(random_vectors(1), model=engine, adapter=adapter)
    with torch.no_grad():
        weights = server.model.model.layers[1].mlp.down_proj.weight
        old = weights.clone()
        weights.mul_(1.3)
    try:
        # The same engine with the same adapter is not tested twice, another one is.
        assert len(self_explain(random_vectors(1), model=engine, adapter=adapter)) == len(table)
        other = ServedEngine(engine.url, dtype="float32")
        with pytest.raises(ContractError, match=r"within 0\.001 nats per token .* and ServedEngine differs by"):
            self_explain(random_vectors(1), model=other, adapter=adapter)
    finally:
        with torch.no_grad():
            weights.copy_(old)
    server.model = _plain(folders[kind]).bfloat16().float()
    strict, loose = ServedEngine(engine.url, dtype="float32"), ServedEngine(engine.url)
    with pytest.raises(ContractError, match="another model, dtype, quantization or tokenizer"):
        require_same_model(strict, adapter)
    require_same_model(loose, adapter)


@pytest.mark.parametrize("kind", ["llama"], indirect=True)
def test_an_adapter_without_a_probe_is_refused_and_its_model_by_name(engine, adapter, random_vectors):
    adapter.contract = dataclasses.replace(adapter.contract, probe=None)
    with pytest.raises(InterpToolkitError, match="expected an adapter with a probe.*make_probe"):
        self_explain(random_vectors(1), model=engine, adapter=adapter)
    adapter.contract = dataclasses.replace(adapter.contract, model_id="another/model")
    with pytest.raises(ContractError, match="the adapter was trained on another/model"):
        self_explain(random_vectors(1), model=engine, adapter=adapter)


@pytest.mark.parametrize("kind", ["llama"], indirect=True)
def test_a_model_that_only_the_server_has_is_to_be_named(server, folders, tmp_path):
    server.root = str(tmp_path / "elsewhere")
    with running(server) as address:
        with pytest.raises(InterpToolkitError, match=r"was started with .*elsewhere.*name the model's hub id.*--model"):
            ServedEngine(address)
        with pytest.raises(InterpToolkitError, match="could not load the tokenizer"):
            ServedEngine(address, str(tmp_path))
        assert ServedEngine(address, str(folders["llama"])).facts.d_model == 32


@pytest.mark.parametrize("kind", ["llama"], indirect=True)
def test_an_engine_that_can_be_no_key_is_tested_each_time(local, kind, adapter, random_vectors):
    @dataclasses.dataclass
    class Other:
        inner: LocalEngine
        scored: int = 0
        capabilities = frozenset()
        device = torch.device("cpu")

        @property
        def facts(self):
            return self.inner.facts

        @property
        def identity(self):
            return self.inner.identity

        def generate(self, *arguments, **settings):
            return self.inner.generate(*arguments, **settings)

        def score(self, *arguments):
            self.scored += 1
            return self.inner.score(*arguments)

    engine = Other(LocalEngine(local(kind)))
    for _ in range(2):
        self_explain(random_vectors(1), model=engine, adapter=adapter)
    assert engine.scored == 2


@pytest.mark.parametrize("kind", ["llama"], indirect=True)
def test_controls_are_measured_by_a_server(kind, engine, local, adapter, random_vectors):
    vectors, labels = random_vectors(4), ["rivers", "a fox", "the dog", "history"]
    untrained = untrained_adapter(adapter, 3.0)
    assert untrained.contract.probe is None
    with pytest.raises(InterpToolkitError, match="expected an adapter with a probe"):
        control_losses(engine, untrained, vectors, labels)
    # Once an adapter's probe has told which model it is, others of the model are measured too.
    for one in (adapter, untrained):
        here, there = (control_losses(model, one, vectors, labels) for model in (local(kind), engine))
        assert dataclasses.astuple(there) == pytest.approx(dataclasses.astuple(here), abs=1e-4)


@pytest.mark.parametrize("kind", ["llama"], indirect=True)
def test_what_a_server_cannot_do_is_refused(engine, adapter, random_vectors):
    prompt, tokens = adapter.contract.soft_prompt, adapter(random_vectors(1))
    with pytest.raises(InterpToolkitError, match="expected vectors, since ServedEngine does not read the activations"):
        self_explain("foxes?", model=engine, adapter=adapter)
    deep = adapter.with_soft_prompt(prompt.at("blocks.1.hook_resid_pre"))
    with pytest.raises(InterpToolkitError, match="ServedEngine replaces embeddings only"):
        self_explain(random_vectors(1), model=engine, adapter=deep)
    with pytest.raises(InterpToolkitError, match="since ServedEngine writes nowhere else, got one at blocks.1"):
        engine.generate(prompt.at("blocks.1.hook_resid_pre"), tokens)
    with pytest.raises(InterpToolkitError, match=r"got one at hook_embed \(mode 'add'\)"):
        engine.score(prompt.at("hook_embed", "add"), tokens.detach(), [[5]])
    with pytest.raises(InterpToolkitError, match="without gradients, since ServedEngine gives none"):
        engine.score(prompt, tokens.requires_grad_(True), [[5]])
    with pytest.raises(InterpToolkitError, match="soft token 0 is not finite"):
        engine.generate(prompt, tokens.detach() * math.nan)
    with pytest.raises(InterpToolkitError, match=r"with max_new_tokens=200 is .* the engine reads 256 tokens"):
        engine.generate(prompt, tokens.detach(), max_new_tokens=200)
    with pytest.raises(InterpToolkitError, match="expected soft tokens of width 32, the model's, got 16"):
        engine.generate(prompt, tokens.detach()[:, :16])
    # Letters that together are the text of one token.
    ids = engine.tokenizer.convert_tokens_to_ids(list("<|eos|>"))
    with pytest.raises(InterpToolkitError, match=r"target 1 cannot be sent to ServedEngine as the text '<\|eos\|>'"):
        engine.score(prompt, tokens.detach(), [[5], ids], [0, 0])


@pytest.mark.parametrize("kind", ["llama"], indirect=True)
def test_a_text_that_cannot_be_sent_has_no_evidence(engine, adapter, random_vectors, monkeypatch):
    read = engine._log_probs
    monkeypatch.setattr(engine, "_log_probs", lambda prompts: [None, *read(prompts[1:])])
    require = adapter.contract.soft_prompt
    with pytest.warns(UserWarning, match="1 of 2 texts have no evidence: their tokens are others once they are sent"):
        (one,), (two,) = engine.generate(require, adapter(random_vectors(2)), null=adapter.null())
    assert math.isnan(one.evidence)
    assert not math.isnan(two.evidence)


@pytest.mark.parametrize("kind", ["llama"], indirect=True)
def test_a_file_of_vectors_by_a_server(engine, server, adapter, random_vectors, tmp_path, local, kind):
    np.save(tmp_path / "vectors.npy", random_vectors(10).numpy())
    settings = dict(adapter=adapter, rows_per_part=4)
    server.faults += [lambda _: None] * 30 + [status(400)] * 30
    with pytest.raises(InterpToolkitError, match="the server said 400"):
        describe_file(tmp_path / "vectors.npy", tmp_path / "out", model=engine, **settings)
    server.faults.clear()
    done = describe_file(tmp_path / "vectors.npy", tmp_path / "out", model=engine, **settings)
    assert done.there + done.written == 3
    describe_file(tmp_path / "vectors.npy", tmp_path / "here", model=local(kind), **settings)
    there, here = read_descriptions(tmp_path / "out"), read_descriptions(tmp_path / "here")
    assert there["description"].tolist() == here["description"].tolist()
    with pytest.raises(InterpToolkitError, match="holds another job, with block_signs"):
        describe_file(tmp_path / "vectors.npy", tmp_path / "out", model=local(kind), **settings)


@pytest.mark.parametrize("kind", ["llama"], indirect=True)
def test_a_probe_is_saved_with_the_contract_and_a_damaged_one_refused(adapter, tmp_path):
    adapter.save_pretrained(tmp_path / "adapter")
    read = Adapter.from_pretrained(tmp_path / "adapter").contract.probe
    assert read.texts == adapter.contract.probe.texts
    np.testing.assert_allclose(read.log_probs, adapter.contract.probe.log_probs, atol=1e-6)
    stated = adapter.contract.probe.to_dict()
    for damage in ({"log_probs": [0.0]}, {"log_probs": [math.nan] * len(read.log_probs)}, {"texts": []}):
        with pytest.raises(FileFormatError, match="expected two finite log-probabilities"):
            parse_probe(stated | damage)
    for damage in (None, [], {"texts": [["x"]]}, {"texts": 3}):
        with pytest.raises(InterpToolkitError, match="probe"):
            parse_probe(damage if not isinstance(damage, dict) else stated | damage)


@pytest.mark.parametrize("kind", ["llama"], indirect=True)
def test_a_probe_is_not_measured_on_another_model(adapter, tiny):
    for other in (tiny(), tiny("gemma2")):
        with pytest.raises(ContractError, match="the adapter was trained on"):
            make_probe(other, adapter)


@pytest.mark.parametrize("kind", ["llama"], indirect=True)
def test_the_command_of_a_server(folders, kind, monkeypatch, tmp_path):
    folder = str(folders[kind])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InterpToolkitError, match=r"expected vLLM 0\.32 or newer.*pip install vllm"):
        server_command(folder)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr("interp_toolkit.engines.server.cache_folder", lambda: tmp_path)
    command = server_command(folder, port=9, dtype="float32", options=["--api-key", "x"])
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[-2:] == ["--api-key", "x"]
    tokenizer = AutoTokenizer.from_pretrained(command[command.index("--tokenizer") + 1])
    known = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == len(known)
    assert tokenizer.convert_tokens_to_ids("<prompt_embeds>") == known.convert_tokens_to_ids("<|reserved_0|>")
    text = "<|im_start|>user\nTell me about foxes.<|im_end|>"
    assert tokenizer(text)["input_ids"] == known(text)["input_ids"]
    with pytest.raises(InterpToolkitError, match="could not load the tokenizer"):
        server_command(str(tmp_path))


def test_old_places_of_engines_go_on_with_a_warning():
    import interp_toolkit.runtime as runtime

    with pytest.warns(DeprecationWarning, match=r"interp_toolkit\.engines\.LocalEngine"):
        assert runtime.LocalEngine is LocalEngine
    with pytest.raises(AttributeError, match="has no attribute 'engine_of'"):
        getattr(runtime, "engine" + "_of")
