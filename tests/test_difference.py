"""What a fine-tune changed: differences of residual streams, described beside controls."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import hugging_face
from transformers import AutoModelForCausalLM

from interp_toolkit import (
    Adapter,
    InterpToolkitError,
    Sampling,
    SiteStack,
    describe_difference,
    load_model,
    self_explain,
)
from interp_toolkit.chat import prompt_ids
from interp_toolkit.cli import main
from interp_toolkit.contract import Contract
from interp_toolkit.models import model_facts
from interp_toolkit.models.lora import is_lora, load_lora
from interp_toolkit.views import difference_report

PROMPTS = ["the quick brown fox", "Tell me about Poland.", "a lazy dog jumps", "rivers", "history of baseball"]


def _changed(folder, size, seed=0):
    """Hugging Face's model with other weights in one of its products."""
    model = hugging_face(folder)
    drawn = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        weight = model.model.layers[1].mlp.down_proj.weight
        weight += size * torch.randn(weight.shape, generator=drawn)
    return model


@pytest.fixture(scope="module")
def fine_tunes(checkpoints, tiny_tokenizer, tmp_path_factory):
    """Folders of three fine-tunes of the tiny Llama."""
    folders = []
    for seed in range(3):
        folder = tmp_path_factory.mktemp(f"tuned-{seed}")
        _changed(checkpoints["llama"], 0.1, seed).save_pretrained(folder)
        tiny_tokenizer.save_pretrained(folder)
        folders.append(folder)
    return folders


@pytest.fixture(scope="module")
def tuned(fine_tunes):
    return load_model(fine_tunes[0], dtype="float32")


@torch.no_grad()
def _states(hf, ids):
    # Behind block 2, as the adapter's site is.
    return [hf(torch.tensor([row]), output_hidden_states=True).hidden_states[3][0] for row in ids]


@pytest.mark.parametrize("chat", [True, False])
def test_differences_are_those_of_hugging_face(tiny, tiny_hf, adapter, tuned, fine_tunes, chat):
    table = describe_difference(tiny(), tuned, PROMPTS, adapter, tokens=3, halves=2, chat=chat)
    ids = prompt_ids(tiny().tokenizer, PROMPTS, chat)
    shared = next(i for i in range(99) if len({tuple(row[: i + 1]) for row in ids}) > 1)
    before = _states(tiny_hf("llama"), ids)
    after = _states(hugging_face(fine_tunes[0]), ids)
    changes = [y[shared:] - x[shared:] for x, y in zip(before, after)]
    lengths = torch.cat([x[shared:] for x in before]).norm(dim=-1)
    whole = torch.cat(changes)
    vectors = {
        "mean of all tokens": whole.mean(0),
        "mean of last tokens": torch.stack([change[-1] for change in changes]).mean(0),
    }
    for what, vector in vectors.items():
        (row,) = table[table.what == what].to_dict("records")
        (wanted,) = self_explain(vector[None], model=tiny(), adapter=adapter)
        assert row["description"] == wanted.description
        assert row["evidence"] == pytest.approx(wanted.evidence, abs=1e-4)
    of_all = table[table.what == "mean of all tokens"]["size"].item()
    assert of_all == pytest.approx((whole.mean(0).norm() / lengths.mean()).item(), rel=1e-4)
    sizes = (whole.norm(dim=-1) / lengths).sort(descending=True).values[:3]
    tokens = table[table.what == "token"].sort_values("size", ascending=False)
    assert np.allclose(tokens["size"], sizes, rtol=1e-4)
    for row in tokens.to_dict("records"):
        number = PROMPTS.index(row["source"])
        assert row["position"] >= shared
        assert row["token"] == tiny().tokenizer.decode([ids[number][row["position"]]])
        change = after[number][row["position"]] - before[number][row["position"]]
        (wanted,) = self_explain(change[None], model=tiny(), adapter=adapter)
        assert row["evidence"] == pytest.approx(wanted.evidence, abs=1e-4)


def test_controls_stand_in_the_table_and_p_values_count_them(tiny, adapter, tuned, fine_tunes):
    table = describe_difference(
        tiny(), tuned, PROMPTS, adapter, placebos=fine_tunes[1:], tokens=2, halves=4, sampling=Sampling(n=2)
    )
    counts = table.groupby(["model", "what"]).size().to_dict()
    each = {"mean of all tokens": 2, "mean of last tokens": 2, "token": 4}
    models = ("tuned", "placebo 1", "placebo 2")
    assert counts == {(m, w): n for m in models for w, n in each.items()} | {("base", "halves of the prompts"): 8}
    assert table.control.tolist() == [model != "tuned" for model in table.model]
    assert table.evidence.is_monotonic_decreasing
    control = table[table.control].evidence.to_numpy()
    for row in table[~table.control].to_dict("records"):
        assert row["p_value"] == pytest.approx((1 + (control >= row["evidence"]).sum()) / (1 + len(control)))
    assert table[table.control].p_value.isna().all()


def test_the_same_call_gives_the_same_table(tiny, adapter, tuned):
    first, again, other = (
        describe_difference(tiny(), tuned, PROMPTS, adapter, tokens=1, halves=3, seed=seed) for seed in (0, 0, 1)
    )
    pd.testing.assert_frame_equal(first, again)
    assert not first["size"].equals(other["size"])


def test_what_cannot_be_compared_is_refused(tiny, adapter, tuned, checkpoints):
    base = tiny()
    with pytest.raises(InterpToolkitError, match="expected at least 4 prompts, got 3"):
        describe_difference(base, tuned, PROMPTS[:3], adapter)
    with pytest.raises(InterpToolkitError, match="expected another model than the base as tuned, got the base itself"):
        describe_difference(base, base, PROMPTS, adapter)
    with pytest.raises(InterpToolkitError, match="of tuned are those of the base at every token"):
        describe_difference(base, checkpoints["llama"], PROMPTS, adapter)
    with pytest.raises(InterpToolkitError, match=r"placebo 1 are those of the base"):
        describe_difference(base, tuned, PROMPTS, adapter, placebos=[checkpoints["llama"]])
    with pytest.raises(InterpToolkitError, match=r"both models in one dtype, got the base in torch\.float32 and tuned"):
        describe_difference(base, load_model(checkpoints["llama"], dtype="bfloat16"), PROMPTS, adapter)
    with pytest.raises(InterpToolkitError, match="expected tokens of at least 0 and halves of at least 1, got 1 and 0"):
        describe_difference(base, tuned, PROMPTS, adapter, tokens=1, halves=0)


def test_another_tokenizer_is_refused(tiny, adapter, tuned):
    kept = tuned.tokenizer.chat_template
    tuned.tokenizer.chat_template = kept.replace("<|im_end|>", "<|im_end|> ")
    try:
        with pytest.raises(InterpToolkitError, match="expected the same tokens of every prompt in both models"):
            describe_difference(tiny(), tuned, PROMPTS, adapter, chat=True)
    finally:
        tuned.tokenizer.chat_template = kept


def test_a_model_of_another_depth_is_refused(tiny, adapter, checkpoints):
    model = AutoModelForCausalLM.from_pretrained(checkpoints["llama"], num_hidden_layers=3, dtype=torch.float32)
    shallow = load_model(model, tokenizer=tiny().tokenizer)
    with pytest.raises(InterpToolkitError, match="with 4 layers of width 32, got 3 of 32 as tuned"):
        describe_difference(tiny(), shallow, PROMPTS, adapter)


# LoRA adapters


@pytest.fixture
def lora(checkpoints, tmp_path):
    """The folder of a LoRA adapter of the tiny Llama, and Hugging Face's model with it."""
    peft = pytest.importorskip("peft")
    model = hugging_face(checkpoints["llama"])
    config = peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of transformers, at a name that peft uses
        tuned = peft.get_peft_model(model, config).eval()
    tuned.save_pretrained(str(tmp_path / "lora"), save_embedding_layers=False)
    return tmp_path / "lora", tuned


@torch.no_grad()
def test_a_lora_adapter_is_merged_into_a_copy(tiny, lora, checkpoints):
    folder, hf = lora
    assert is_lora(folder)
    assert not is_lora(checkpoints["llama"])
    merged = load_lora(folder, checkpoints["llama"], "float32")
    ids = torch.tensor(prompt_ids(merged.tokenizer, [PROMPTS[0]], False))
    assert torch.allclose(merged(ids), hf(ids).logits, atol=1e-4)
    assert not torch.allclose(merged(ids), tiny()(ids), atol=1e-2)
    # By the base that the adapter names.
    assert torch.equal(load_lora(folder, dtype="float32")(ids), merged(ids))


def test_a_lora_adapter_is_compared_by_its_folder(tiny, adapter, lora, checkpoints):
    folder, _ = lora
    settings = dict(tokens=1, halves=2)
    by_folder = describe_difference(checkpoints["llama"], folder, PROMPTS, adapter, **settings)
    by_model = describe_difference(tiny(), load_lora(folder, dtype="float32"), PROMPTS, adapter, **settings)
    pd.testing.assert_frame_equal(by_folder, by_model)


def test_a_lora_adapter_that_cannot_be_read_is_refused(lora, checkpoints, tmp_path):
    folder, _ = lora
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(InterpToolkitError, match="pickled weights are not read"):
        load_lora(folder, checkpoints["llama"])
    (folder / "adapter_model.bin").rename(folder / "adapter_model.safetensors")
    with pytest.raises(InterpToolkitError, match="does not fit"):
        load_lora(folder, checkpoints["gpt2"])


# What a person sees


def test_the_page_has_the_controls_and_says_what_is_missing(tiny, adapter, tuned, fine_tunes):
    alone = describe_difference(tiny(), tuned, PROMPTS, adapter, tokens=1, halves=2)
    page = str(difference_report(alone, title="<b>A fine-tune</b>"))
    assert "There is no placebo among the controls" in page
    assert "<b>A fine-tune" not in page
    assert "halves of the prompts" in page
    compared = describe_difference(tiny(), tuned, PROMPTS, adapter, placebos=fine_tunes[1:2], tokens=1, halves=2)
    page = str(difference_report(compared))
    assert "There is no placebo" not in page
    assert "placebo 1" in page
    with pytest.raises(InterpToolkitError, match="it lacks control"):
        difference_report(compared.drop(columns="control"))


def test_the_command_prints_tables_and_writes_a_page(checkpoints, adapter, fine_tunes, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    adapter.save_pretrained(tmp_path / "adapter")
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    common = [str(checkpoints["llama"]), str(fine_tunes[0]), str(tmp_path / "prompts.txt")]
    common += ["--adapter", str(tmp_path / "adapter"), "--tokens", "1"]
    assert main(["diff", *common]) == 0
    out = capsys.readouterr().out
    assert "mean of all tokens" in out
    assert "no placebo was given" in out
    assert max(map(len, out.splitlines())) <= 80
    assert main(["diff", *common, "--placebo", str(fine_tunes[1]), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["difference"]
    assert {row["model"] for row in rows} == {"tuned", "placebo 1", "base"}
    assert main(["diff", *common, "--html", str(tmp_path / "page.html")]) == 0
    assert "<html" in (tmp_path / "page.html").read_text()
    assert main(["diff", common[0], *common[:1], *common[2:]]) == 2
    assert "expected a fine-tune of other weights" in capsys.readouterr().err


def test_an_adapter_that_reads_several_sites_describes_differences(tiny, tiny_prompt, tuned):
    stacked = Adapter.create("full_rank", 32, sites=2)
    stacked.contract = Contract.from_facts(model_facts(tiny()), SiteStack([1, 2]), tiny_prompt, torch.zeros(64), True)
    table = describe_difference(tiny(), tuned, PROMPTS, stacked, tokens=1, halves=2)
    assert len(table) == 5
    assert (table["size"] > 0).all()
