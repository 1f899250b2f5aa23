"""Adapters on the hub: its own client writes to a stand-in for the hub and reads from it again, over HTTP."""

import json
import socket
from dataclasses import replace

import fake_hub
import huggingface_hub
import numpy as np
import pandas as pd
import pytest
import torch
from huggingface_hub import EvalResult, ModelCard
from safetensors.torch import load_file
from test_stored import _full, _trained

from interp_toolkit import Adapter, FileFormatError, InterpToolkitError, Site, SoftPrompt, self_explain
from interp_toolkit.adapters.cards import adapter_card
from interp_toolkit.contract import Contract
from interp_toolkit.evaluation import recall_table
from interp_toolkit.models import model_facts
from interp_toolkit.shipped import find_adapter, find_stored

# The hub's client passes an open file to its HTTP library in a way that this warns of.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
REPO = "user/my-adapter"
FILES = {".gitattributes", "README.md", "adapter_config.json", "adapter_model.safetensors"}
TABLE = recall_table(torch.tensor([1, 2, 4, 60])).assign(dataset="titles of articles", split="val")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with fake_hub.running(monkeypatch, tmp_path / "cache") as hub:
        yield hub


@pytest.fixture
def adapter():
    return _trained("scalar_affine")


def _push(adapter, repo_id=REPO, token=fake_hub.OWNER, **options):
    return adapter.push_to_hub(repo_id, token=token, **options)


def _head(hub, branch="main", repo_id=REPO):
    repository = hub.repositories[repo_id]
    return repository.commits[repository.branches[branch]]


# What is pushed is what comes back.


@pytest.mark.parametrize("dtype", [torch.float32, torch.int8])
def test_an_adapter_comes_back_as_it_was_pushed(hub, tmp_path, dtype):
    adapter = _full()
    _push(adapter, dtype=dtype)
    assert set(_head(hub)) == FILES
    adapter.save_pretrained(tmp_path / "saved", dtype)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert _head(hub)[name] == (tmp_path / "saved" / name).read_bytes()
    again, saved = Adapter.from_pretrained(REPO), Adapter.from_pretrained(tmp_path / "saved")
    assert (again.digest, again.metadata) == (saved.digest, adapter.metadata)
    assert again.contract.to_dict() == adapter.contract.to_dict()
    for name, value in saved.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    assert torch.equal(again.contract.mean, adapter.contract.mean)
    assert torch.equal(again.contract.more[0].mean, adapter.contract.more[0].mean)
    for name, value in saved.contract.way_back.tensors().items():
        assert torch.equal(again.contract.way_back.tensors()[name], value)
    assert again.contract.confidence == adapter.contract.confidence
    assert (again.digest == adapter.digest) is (dtype == torch.float32)
    assert f"digest `{again.digest}`" in _card(hub).text


def test_names_of_the_hub_are_found_wherever_adapters_are_named(hub, adapter):
    _push(adapter)
    assert find_adapter(REPO).digest == find_stored(REPO).digest == adapter.digest


def test_a_push_is_one_commit(hub, adapter):
    commit = _push(adapter, commit_message="Train for longer")
    repository = hub.repositories[REPO]
    assert [*repository.messages.values()] == ["initial commit", "Train for longer"]
    assert commit == commit.commit_url == f"{hub.address}/{REPO}/commit/{repository.branches['main']}"
    assert commit.oid == repository.branches["main"]
    assert sum(" /api/models/user/my-adapter/commit/" in call for call, _, _ in hub.requests) == 1


def test_a_commit_that_was_pushed_can_be_read_when_later_ones_are_there(hub):
    first, second = _trained("scalar_affine"), _trained("low_rank")
    commit = _push(first)
    assert _push(second).oid != commit.oid
    assert Adapter.from_pretrained(REPO).digest == second.digest
    assert Adapter.from_pretrained(REPO, revision=commit.oid).digest == first.digest


def test_a_branch_is_created_where_it_is_missing(hub):
    first, second, third = (_trained("scalar_affine") for _ in range(3))
    _push(first)
    for adapter in (second, third):
        _push(adapter, revision="longer/v2")
        assert Adapter.from_pretrained(REPO, revision="longer/v2").digest == adapter.digest
    assert Adapter.from_pretrained(REPO, revision="main").digest == first.digest
    assert 'Adapter.from_pretrained("user/my-adapter", revision="longer/v2")' in _card(hub, "longer/v2").text


def test_the_token_is_sent_with_every_request(hub, adapter):
    _push(adapter, private=True)
    # Contents go to signed addresses of another host, which take no token.
    assert {token for call, token, _ in hub.requests if not call.startswith("PUT ")} == {fake_hub.OWNER}


@pytest.mark.parametrize("private", [None, False, True])
def test_a_new_repository_is_as_private_as_asked_for(hub, adapter, private):
    _push(adapter, private=private)
    assert hub.repositories[REPO].private is bool(private)


def test_a_private_one_is_read_with_the_token_of_the_environment(hub, adapter, monkeypatch):
    _push(adapter, private=True)
    with pytest.raises(
        FileFormatError, match=f"the hub has no {REPO} that you may see; check the name, and, if it is p"
    ):
        Adapter.from_pretrained(REPO)
    monkeypatch.setenv("HF_TOKEN", fake_hub.READER)
    assert Adapter.from_pretrained(REPO).digest == adapter.digest


def test_an_old_repository_is_not_taken_for_a_private_one(hub, adapter):
    hub.add(REPO)
    with pytest.raises(
        InterpToolkitError, match=f"{REPO} is there already and is public, not what private=True asks f"
    ):
        _push(adapter, private=True)
    assert set(_head(hub)) == {".gitattributes"}
    _push(adapter, private=False)
    assert set(_head(hub)) == FILES


# Reading.


def test_folders_and_files_of_a_repository_are_named_apart(hub, tmp_path):
    small, large, single = _trained("scale"), _trained("low_rank"), _trained("scalar_affine")
    files = {}
    for name, adapter in {"small": small, "more/large": large}.items():
        adapter.save_pretrained(tmp_path / name)
        files |= {f"{name}/{path.name}": path.read_bytes() for path in (tmp_path / name).iterdir()}
    single.save_published(tmp_path / "one.safetensors")
    hub.add("org/several", {**files, "one.safetensors": (tmp_path / "one.safetensors").read_bytes()})
    for filename, adapter in {
        "small": small,
        "more/large": large,
        "more/large/adapter_model.safetensors": large,
        "one.safetensors": single,
    }.items():
        assert Adapter.from_pretrained("org/several", filename).digest == adapter.digest
        assert Adapter.from_pretrained(f"org/several/{filename}").digest == adapter.digest
    with pytest.raises(
        FileFormatError, match=r"on the hub org/several holds no adapter_config.json; name one of its f"
    ):
        Adapter.from_pretrained("org/several")
    with pytest.raises(
        FileFormatError, match=r"on the hub the folder more of org/several holds no adapter_config.json"
    ):
        Adapter.from_pretrained("org/several", "more")


def test_what_is_missing_is_named(hub, adapter):
    _push(adapter)
    with pytest.raises(FileFormatError, match=r"no adapter at user/none: .* the hub has no user/none that you may see"):
        Adapter.from_pretrained("user/none")
    with pytest.raises(
        FileFormatError, match=f"{REPO} on the hub has no branch, tag or commit 'v9'; look at the names"
    ):
        Adapter.from_pretrained(REPO, revision="v9")
    with pytest.raises(
        FileFormatError, match=rf"{REPO} on the hub has no file 'a\.safetensors' at main; look at the na"
    ):
        Adapter.from_pretrained(REPO, "a.safetensors")
    hub.repositories[REPO].gated = True
    with pytest.raises(FileFormatError, match=f"the hub has {REPO} for those alone who were let in; ask for access"):
        Adapter.from_pretrained(REPO, "a.safetensors")


def test_what_was_fetched_before_is_read_without_the_hub(hub, adapter, monkeypatch):
    _push(adapter)
    Adapter.from_pretrained(REPO)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert Adapter.from_pretrained(REPO).digest == adapter.digest
    for name, options in {"user/another": {}, REPO: dict(revision="v2")}.items():
        with pytest.raises(FileFormatError, match=rf"no adapter at {name}: .* HF_HUB_OFFLINE is set; unset it$"):
            Adapter.from_pretrained(name, **options)
    with pytest.raises(
        InterpToolkitError, match=f"not pushed to {REPO}: the hub is not reached while HF_HUB_OFFLINE is"
    ):
        _push(adapter)
    assert not hub.requests


def test_a_damaged_adapter_of_the_hub_is_refused(hub, adapter):
    _push(adapter)
    name = "adapter_model.safetensors"
    damaged = _head(hub)[name][:-1] + b"!"
    hub.repositories[REPO].commit("main", {name: damaged}, "damage")
    with pytest.raises(FileFormatError, match="is damaged: its SHA-256 is not the one in adapter_config.json"):
        Adapter.from_pretrained(REPO)


@pytest.mark.parametrize("name", ["../x", "a/../../x", "..", "/etc/passwd", "a//b", "./a", ""])
def test_names_that_lead_out_of_a_repository_are_refused(hub, adapter, tmp_path, name):
    adapter.save_pretrained(tmp_path / "a")
    for place in (REPO, tmp_path):
        with pytest.raises(FileFormatError, match="expected a filename such as 'a' or 'a/b', without '..', got '"):
            Adapter.from_pretrained(place, name)
    for act in (lambda: Adapter.from_pretrained(REPO, revision=name), lambda: _push(adapter, revision=name)):
        with pytest.raises(InterpToolkitError, match="expected a revision such as 'a' or 'a/b', without '..', got '"):
            act()
    with pytest.raises(FileFormatError, match="no adapter at "):
        Adapter.from_pretrained(f"user/../{name}")
    assert not hub.requests


# Refusals, after which nothing is there that was not there before.


@pytest.mark.parametrize("repo_id", ["../x", "my-adapter", "user/../x", "user/a--b", "user/a b", "", "/x", "a/b/c"])
def test_an_id_that_names_no_repository_is_refused(hub, adapter, repo_id):
    with pytest.raises(InterpToolkitError, match="expected a hub id like 'user/my-adapter', got '") as raised:
        _push(adapter, repo_id)
    assert "\n" not in str(raised.value)
    assert not hub.requests


def test_an_adapter_without_a_contract_is_refused(hub, adapter):
    with pytest.raises(InterpToolkitError, match="an adapter is saved with its contract, and this one has none: train"):
        _push(Adapter.create("scale", 8))
    with pytest.raises(InterpToolkitError, match="expected a dtype of float32, float16, bfloat16 or int8, got"):
        _push(adapter, dtype=torch.float64)
    assert not hub.requests


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (None, "the hub wants a valid token; log in with 'hf auth login', or set HF_TOKEN"),
        ("hf_nobody", "the hub wants a valid token; log in with 'hf auth login', or set HF_TOKEN"),
        (fake_hub.READER, f"the token has no permission for this on {REPO}; use one that has, of a user who may"),
    ],
)
def test_who_may_not_write_is_refused(hub, adapter, token, reason):
    before = hub.add("user/other")
    with pytest.raises(InterpToolkitError) as raised:
        _push(adapter, token=token)
    assert str(raised.value) == f"the adapter was not pushed to {REPO}: {reason}"
    assert hub.repositories == {"user/other": before}


@pytest.mark.parametrize(
    ("failing", "status", "reason"),
    [
        ("POST .*/commit/", 500, r"the hub answered 500 \(it is broken\); try again later"),
        ("POST .*/preupload/", 404, f"the hub has no {REPO} that you may see; check the name"),
        ("POST .*/objects/batch", 400, r"the hub answered 400 \(it is broken\); try again later"),
        ("PUT /large/", 403, "the token has no permission for this"),
        ("POST .*/branch/", 400, r"the hub answered 400 \(it is broken\); try again later"),
    ],
)
def test_a_push_that_fails_in_the_middle_commits_nothing(hub, adapter, failing, status, reason, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client's, between tries
    _push(_trained("low_rank"))
    before = dict(hub.repositories[REPO].commits)
    hub.failures[failing] = status
    with pytest.raises(InterpToolkitError, match=f"the adapter was not pushed to {REPO}: {reason}"):
        _push(adapter, revision="main")
    assert hub.repositories[REPO].commits == before
    hub.failures.clear()
    _push(adapter, revision="main")
    assert Adapter.from_pretrained(REPO).digest == adapter.digest


def test_a_hub_out_of_reach_is_named(adapter, tmp_path, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    fake_hub.point_at(monkeypatch, address, tmp_path)
    reason = rf"the hub at {address} could not be reached \(.*refused.*\); check the network, then try again"
    with pytest.raises(InterpToolkitError, match=f"the adapter was not pushed to {REPO}: {reason}"):
        _push(adapter)
    with pytest.raises(FileFormatError, match=f"no adapter at {REPO}: no such folder here, and {reason}"):
        Adapter.from_pretrained(REPO)
    huggingface_hub.close_session()


# Cards.


def _card(hub, branch="main"):
    return ModelCard.load(huggingface_hub.hf_hub_download(REPO, "README.md", revision=branch))


def test_the_card_says_what_the_adapter_is(hub):
    adapter = _full()
    _push(adapter)
    card = _card(hub)
    assert (card.data.base_model, card.data.library_name) == ("org/some-model", "interp-toolkit")
    assert card.data.tags == ["interpretability", "self-interpretation", "adapter"]
    assert not card.data.get("eval_results")
    for text in (
        "# my-adapter\n",
        f"kind `low_rank` with {adapter.parameter_count} parameters, for org/some-model\n(revision `abc`)",
        "the vectors of one token at 2 sites, side by side, read at\n`blocks.4.hook_resid_post + blocks.10.",
        "centred by the mean it carries, into 2 soft tokens",
        "It also takes vectors read at `blocks.4.hook_resid_post`, `blocks.3.hook_resid_post`.",
        'adapter = Adapter.from_pretrained("user/my-adapter")\nmodel = load_model("org/some-model")\n',
        "**Threshold.** 0.50 nats per token of evidence, which at most 5% of control descriptions reach (n = 100, ",
        f"digest `{adapter.digest}`",
    ):
        assert text in card.text
    assert "**Evaluation.**" not in card.text


def test_the_program_of_a_card_runs_and_ids_name_adapters(hub, tiny, capsys):
    model = tiny()
    facts = replace(model_facts(model), model_id="org/tiny")
    prompt = SoftPrompt("<|im_start|>user\nWhat is <|reserved_0|>?<|im_end|>\n", "<|reserved_0|>", "<|im_end|>")
    adapter = Adapter.create("scale", facts.d_model)
    adapter.contract = Contract.from_facts(facts, Site.after(2), prompt, None, True)
    _push(adapter)
    program = _card(hub).text.split("```python\n")[1].split("```")[0]
    exec(program.replace('load_model("org/tiny")', "tiny"), dict(tiny=model))
    printed = capsys.readouterr().out.strip()
    assert printed == str(self_explain("Tell me about baseball.", model=model, adapter=REPO))


@pytest.mark.parametrize("rows", [TABLE, TABLE.to_dict("records"), iter(TABLE.to_dict("records"))])
def test_the_card_holds_the_evaluation(hub, adapter, rows):
    _push(adapter, evaluation=rows)
    card = _card(hub)
    results = {result.metric_name: result for result in card.data.eval_results}
    assert {name: x.metric_value for name, x in results.items()} == {
        "recall@1": 0.25, "recall@5": 0.75, "recall@10": 0.75, "recall@100": 1.0, "mrr": 0.4417,
    }  # fmt: skip
    recall = results["recall@5"]
    assert (recall.metric_type, recall.dataset_name, recall.dataset_split) == ("recall", "titles of articles", "val")
    assert card.data.model_name == "my-adapter"
    low, high = TABLE.low[1], TABLE.high[1]
    assert f"| recall@5 | 0.75 ({low:.4g} to {high:.4g}) | 4 | titles of articles (split val) |" in card.text


def test_rows_of_one_measure_are_told_apart_by_their_other_columns(hub, adapter):
    rows = [
        dict(measure="accuracy", value=np.float32(value), right=right, low=float("nan"), dataset="a|b\nc", n=None)
        for value, right in ((0.289, "within 1"), (0.52, "within 10"))
    ]
    _push(adapter, evaluation=pd.DataFrame(rows))
    card = _card(hub)
    names = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert names == {"accuracy (right: within 1)": 0.289, "accuracy (right: within 10)": 0.52}
    assert "| accuracy (right: within 10) | 0.52 |  | a\\|b c |" in card.text


def test_results_of_the_hubs_own_class_are_taken_as_they_are(hub, adapter):
    result = EvalResult("text-generation", "some/data", "Some data", "bleu", "20.0 ± 1.2", dataset_split="test")
    _push(adapter, evaluation=[result])
    card = _card(hub)
    assert card.data.eval_results == [result]
    assert "| bleu | 20.0 ± 1.2 |  | Some data (split test) |" in card.text


@pytest.mark.parametrize(
    ("evaluation", "message"),
    [
        (
            TABLE.drop(columns="dataset"),
            r"columns measure, value, dataset in an evaluation, got measure, value, low, hi",
        ),
        ([dict(control="null")], "got control; add measure, value, dataset, as in table.assign"),
        ([dict(measure="loss", value=float("nan"), dataset="a")], "a finite number as value of loss .* got None"),
        ([dict(measure="loss", value="1", dataset="a")], "a finite number as value of loss .* got '1'"),
        (dict(tables={}), "expected a data frame, its rows, or a list of EvalResult as evaluation, got dict; of a res"),
        ([dict(measure="loss", value=True, dataset="a")], "a finite number as value of loss .* got True"),
        ([dict(measure="loss", value=[0.1, 0.0, 0.2], dataset="a")], r"a finite number as value of loss .* got \[0.1"),
        ([1.0], "columns measure, value, dataset in an evaluation, got 1.0"),
    ],
)
def test_another_evaluation_is_refused(hub, adapter, evaluation, message, unchecked):
    with pytest.raises(InterpToolkitError, match=message):
        _push(adapter, evaluation=evaluation)
    assert not hub.requests


def test_a_card_that_is_passed_is_pushed_as_it_is(hub, adapter):
    text = "---\nlicense: mit\n---\n\n# Mine\n\nIt reads minds.\n"
    _push(adapter, card=text)
    assert _head(hub)["README.md"].decode() == text
    _push(adapter, card=text, evaluation=TABLE)
    card = _card(hub)
    assert card.text == "\n# Mine\n\nIt reads minds.\n"
    assert (card.data.license, len(card.data.eval_results)) == ("mit", 5)


def test_a_card_that_the_hub_does_not_take_is_refused(hub, adapter):
    with pytest.raises(
        InterpToolkitError, match=r"not pushed to .*: the hub's client says: Invalid metadata in README"
    ):
        _push(adapter, card="---\nlicense: nonsense\n---\n")
    with pytest.raises(InterpToolkitError, match="the metadata at the head of the card cannot be read; mend it: "):
        _push(adapter, card="---\n[1, 2]\n---\n", evaluation=TABLE)
    assert set(_head(hub)) == {".gitattributes"}


@pytest.mark.parametrize("model_id", ["/home/user/model", "./model", "model", "", "a/b/c"])
def test_a_folder_is_no_base_model(adapter, model_id):
    adapter.contract = replace(adapter.contract, model_id=model_id)
    assert ModelCard(adapter_card(adapter, REPO)).data.get("base_model") is None


def test_a_card_leaves_out_what_a_contract_does_not_say(adapter):
    adapter.contract = replace(adapter.contract, model_id="", revision="", site=None, mean=None, soft_prompt=None)
    text = ModelCard(adapter_card(adapter, REPO)).text
    assert "for a model that its file does not name. It turns a vector into a soft token" in text
    assert "load_model" not in text
    assert "**Threshold.**" not in text


def test_only_safetensors_json_and_a_card_are_uploaded(hub, adapter, tmp_path):
    _push(adapter)
    head = _head(hub)
    (tmp_path / "w.safetensors").write_bytes(head["adapter_model.safetensors"])
    assert "bias" in load_file(tmp_path / "w.safetensors")
    assert json.loads(head["adapter_config.json"])["format"] == "interp_toolkit_adapter"
