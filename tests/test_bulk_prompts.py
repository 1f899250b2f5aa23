"""All prompts of a file described: what the parts hold, whatever the file is, and what is recorded of a failure."""

import gzip
import json

import pandas as pd
import pytest
from test_sampling import Remote

from interp_toolkit import InterpToolkitError, Sampling, self_explain
from interp_toolkit.bulk import explain_file, read_descriptions, read_prompts
from interp_toolkit.cli import main
from interp_toolkit.errors import FileFormatError

PROMPTS = ["foxes?", "Tell me about Poland.", "rivers", "foxes?", "the lazy dog"]


def _write(folder, kind, prompts=PROMPTS):
    path = folder / f"prompts.{kind}"
    rows = [dict(id=i, text=text) for i, text in enumerate(prompts)]
    if kind == "txt":
        path.write_text("\n".join(prompts) + "\n")
    elif kind == "parquet":
        pd.DataFrame(rows).to_parquet(path)
    else:
        with (gzip.open if kind.endswith("gz") else open)(path, "wt") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _empty(path):
    path.touch()
    return path


@pytest.mark.parametrize("kind", ["txt", "jsonl", "jsonl.gz", "parquet"])
def test_prompts_of_every_kind_of_file(tmp_path, kind):
    assert read_prompts(_write(tmp_path, kind)) == PROMPTS


@pytest.mark.parametrize("positions", ["last", "content", [-2, -1]])
def test_rows_are_those_of_the_prompts_alone(tmp_path, tiny, adapter, positions):
    settings = dict(model=tiny(), adapter=adapter, positions=positions)
    done = explain_file(_write(tmp_path, "txt"), tmp_path / "out", rows_per_part=2, **settings)
    assert (done.written, done.rows) == (3, 5)
    table = read_descriptions(tmp_path / "out")
    for number, prompt in enumerate(PROMPTS):
        rows, alone = table[table["row"] == number], self_explain(prompt, **settings).to_df()
        assert set(rows["source"]) == {prompt}
        for column in ("site", "position", "token", "description"):
            assert rows[column].tolist() == alone[column].tolist()
        assert (rows["evidence"].to_numpy() - alone["evidence"].to_numpy() < 1e-5).all()
    assert explain_file(_write(tmp_path, "txt"), tmp_path / "out", rows_per_part=2, **settings).there == 3


def test_a_prompt_that_cannot_be_described_has_its_reason(tmp_path, tiny, adapter):
    path = _write(tmp_path, "jsonl", ["foxes?", "", "dog " * 300, "rivers"])
    explain_file(path, tmp_path / "out", model=tiny(), adapter=adapter, sampling=Sampling(n=2))
    table = read_descriptions(tmp_path / "out")
    assert table["row"].tolist() == [0, 0, 1, 2, 3, 3]
    assert table["problem"].isna().tolist() == [True, True, False, False, True, True]
    assert "is empty" in table["problem"][2]
    assert "the model's context is 256 tokens" in table["problem"][3]


def test_what_is_no_file_of_prompts_is_refused(tmp_path, tiny, adapter):
    with pytest.raises(FileFormatError, match=r"expected prompts in a \.txt file .* where there is nothing"):
        read_prompts(tmp_path / "none.txt")
    (tmp_path / "some.csv").write_text("a")
    with pytest.raises(FileFormatError, match=r"expected prompts in a \.txt file"):
        read_prompts(tmp_path / "some.csv")
    (tmp_path / "some.parquet").write_bytes(b"no")
    with pytest.raises(FileFormatError, match="is damaged"):
        read_prompts(tmp_path / "some.parquet")
    (tmp_path / "some.jsonl").write_text('{"question": "a", "n": 1}\n')
    with pytest.raises(FileFormatError, match=r"line 1: expected a text in .* \(--column\), one of question, n"):
        read_prompts(tmp_path / "some.jsonl")
    assert read_prompts(tmp_path / "some.jsonl", "question") == ["a"]
    for kind in ("txt", "jsonl", "parquet"):
        with pytest.raises(FileFormatError, match="expected at least one prompt in .*, and there is none"):
            read_prompts(_write(tmp_path, kind, []) if kind != "txt" else _empty(tmp_path / "empty.txt"))
    path = _write(tmp_path, "txt")
    explain_file(path, tmp_path / "out", model=tiny(), adapter=adapter)
    with pytest.raises(InterpToolkitError, match="holds another job, with positions 'last' where this one has 'all'"):
        explain_file(path, tmp_path / "out", model=tiny(), adapter=adapter, positions="all")

    with pytest.raises(InterpToolkitError, match="expected a hooked model, since Remote reads no activations"):
        explain_file(path, tmp_path / "other", model=Remote(tiny()), adapter=adapter)


def test_the_command(tmp_path, checkpoints, adapter, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    adapter.save_pretrained("adapter")
    _write(tmp_path, "txt")
    command = ["explain-file", "prompts.txt", "--model", str(checkpoints["llama"]), "--adapter", "./adapter"]
    assert main([*command, "--output", "out", "--samples", "2", "--position", "content"]) == 0
    assert capsys.readouterr().out == "out: 1 parts made (5 prompts), 0 were there\n"
    assert set(read_descriptions("out")["row"]) == set(range(5))
