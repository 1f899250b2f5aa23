"""Residual streams of all prompts of a file: what is stored, what is described of it, and what is refused."""

import logging

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from interp_toolkit import ContractError, InterpToolkitError, Site, SiteStack, read_activations, self_explain
from interp_toolkit.bulk import describe_file, load_activations, open_vectors, read_descriptions, read_file
from interp_toolkit.cli import main
from interp_toolkit.errors import FileFormatError

PROMPTS = ["foxes?", "Tell me about Poland.", "rivers", "foxes?", "the lazy dog"]


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(PROMPTS) + "\n")
    return path


@pytest.mark.parametrize("positions", ["last", "content", [-2, 0]])
@pytest.mark.parametrize("sites", [[2, 1], SiteStack([1, 3]), 2], ids=str)
def test_they_are_those_that_are_read_without_files(tmp_path, tiny, prompts, sites, positions):
    settings = dict(model=tiny(), positions=positions, rows_per_part=2)
    assert read_file(prompts, tmp_path / "out", sites, **settings).written == 3
    stored = load_activations(tmp_path / "out")
    expected = read_activations(tiny(), PROMPTS, sites, positions)
    pd.testing.assert_frame_equal(stored.table, expected.table)
    assert (stored.vectors - expected.vectors).abs().max() < 1e-5
    assert read_file(prompts, tmp_path / "out", sites, **settings).there == 3


def test_one_site_of_several_and_some_rows(tmp_path, tiny, prompts):
    read_file(prompts, tmp_path / "out", [1, 2], model=tiny(), positions="content", rows_per_part=2)
    whole, one = load_activations(tmp_path / "out"), load_activations(tmp_path / "out", 2)
    at_two = (whole.table["site"] == str(Site.after(2))).to_numpy()
    assert torch.equal(one.vectors, whole.vectors[torch.tensor(at_two)])
    file = open_vectors(tmp_path / "out", "blocks.2.hook_resid_post")
    assert (file.rows, file.width, file.site) == (len(one), 32, "blocks.2.hook_resid_post")
    for start, stop in ((0, file.rows), (0, 1), (3, 9), (file.rows - 1, file.rows)):
        rows, ids = file.read(start, stop)
        assert torch.equal(rows, one.vectors[start:stop])
        assert ids == [f"{row.prompt}:{row.position}" for row in one.table[start:stop].itertuples()]
    with pytest.raises(
        InterpToolkitError, match=r"expected the name of a site in .*, got None; there are: blocks\.1\."
    ):
        open_vectors(tmp_path / "out")
    with pytest.raises(InterpToolkitError, match=r"got 'blocks\.3\.hook_resid_post'; there are: blocks\.1\."):
        load_activations(tmp_path / "out", 3)


def test_a_prompt_that_cannot_be_read_has_its_reason(tmp_path, tiny, adapter, caplog):
    path = tmp_path / "prompts.txt"
    path.write_text("foxes?\n\n" + "dog " * 300 + "\nrivers\n")
    read_file(path, tmp_path / "out", 2, model=tiny())
    with caplog.at_level(logging.WARNING):
        stored = load_activations(tmp_path / "out")
    assert "2 prompts could not be read; the first, number 1: prompt 0 is empty" in caplog.text
    assert stored.table["prompt"].tolist() == [0, 3]
    describe_file(tmp_path / "out", tmp_path / "described", model=tiny(), adapter=adapter)
    described = read_descriptions(tmp_path / "described")
    assert described["problem"].fillna("").tolist() == ["", "is not finite", "is not finite", ""]
    assert described["id"].str.split(":").str[0].tolist() == ["0", "1", "2", "3"]


def test_they_are_described_as_their_prompts_are(tmp_path, tiny, adapter, prompts):
    adapter.contract.mean.copy_(torch.linspace(-0.1, 0.1, 32))
    read_file(prompts, tmp_path / "out", [1, 2], model=tiny(), positions="content", rows_per_part=2)
    site = "blocks.2.hook_resid_post"
    describe_file(tmp_path / "out", tmp_path / "described", tensor=site, model=tiny(), adapter=adapter)
    described = read_descriptions(tmp_path / "described")
    directly = self_explain(PROMPTS, model=tiny(), adapter=adapter, positions="content").to_df()
    assert described["description"].tolist() == directly["description"].tolist()
    assert (described["evidence"] - directly["evidence"]).abs().max() < 1e-4


def test_what_would_be_described_wrongly_is_refused(tmp_path, tiny, adapter, prompts):
    read_file(prompts, tmp_path / "out", [1, 2], model=tiny())
    out, two = tmp_path / "described", "blocks.2.hook_resid_post"
    settings = dict(model=tiny(), adapter=adapter)
    with pytest.raises(InterpToolkitError, match="expected centered=False .* holds residual streams as they were read"):
        describe_file(tmp_path / "out", out, tensor=two, centered=True, **settings)
    with pytest.raises(ContractError, match=r"expected residual streams of blocks\.1\..*, got those of blocks\.2\."):
        describe_file(tmp_path / "out", out, tensor=two, sites=1, **settings)
    with pytest.raises(ContractError, match=r"blocks\.1\.hook_resid_post"):
        describe_file(tmp_path / "out", out, tensor="blocks.1.hook_resid_post", **settings)
    read_file(prompts, tmp_path / "of another", 2, model=tiny("qwen2"))
    with pytest.raises(ContractError, match="expected residual streams of .*, whose weights are others"):
        describe_file(tmp_path / "of another", out, **settings)
    assert not out.exists()


def test_what_is_no_folder_of_residual_streams_is_refused(tmp_path, tiny, adapter, prompts):
    with pytest.raises(FileFormatError, match="expected the folder of a job"):
        load_activations(tmp_path)
    with pytest.raises(InterpToolkitError, match="the model has 4 layers"):
        read_file(prompts, tmp_path / "out", 9, model=tiny())
    read_file(prompts, tmp_path / "out", 2, model=tiny())
    with pytest.raises(InterpToolkitError, match=r"holds another job, with sites \['blocks\.2\."):
        read_file(prompts, tmp_path / "out", 1, model=tiny())
    describe_file(tmp_path / "out", tmp_path / "described", model=tiny(), adapter=adapter)
    with pytest.raises(FileFormatError, match="expected a folder with vectors that `read` stored"):
        open_vectors(tmp_path / "described")


def test_a_change_of_a_vector_is_seen(tmp_path, tiny, prompts):
    read_file(prompts, tmp_path / "out", 2, model=tiny())
    part = next((tmp_path / "out").glob("part-*"))
    table = pq.read_table(part)
    name = "blocks.2.hook_resid_post"
    values = table.column(name).combine_chunks().flatten().to_numpy().copy()
    values[7] += 1
    changed = type(table.column(name).combine_chunks()).from_arrays(values, 32)
    pq.write_table(table.set_column(table.schema.get_field_index(name), name, changed), part)
    with pytest.raises(FileFormatError, match="is damaged: its rows are not those that were written"):
        load_activations(tmp_path / "out")


def test_the_commands(tmp_path, checkpoints, adapter, prompts, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    adapter.save_pretrained("adapter")
    model = ["--model", str(checkpoints["llama"])]
    assert main(["read", "prompts.txt", "--layers", "2", "--position", "content", "--output", "out", *model]) == 0
    assert capsys.readouterr().out == "out: 1 parts made (5 prompts), 0 were there\n"
    assert main(["describe", "out", "--adapter", "./adapter", "--output", "described", *model]) == 0
    assert len(read_descriptions("described")) == len(load_activations("out"))
