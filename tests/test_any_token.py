"""The page *Read any token* runs, on a tiny model."""

import re
from pathlib import Path

import pytest
import torch

from interp_toolkit import SiteStack, load_model, read_activations, self_explain

PAGE = (Path(__file__).parent.parent / "docs" / "how-to" / "any-token.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_the_programs_of_the_page_train_an_adapter_of_a_range(kind, checkpoints, tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_TOOLKIT_CACHE", str(tmp_path / "cache"))
    model = load_model(checkpoints[kind], dtype="float32")
    monkeypatch.setattr("interp_toolkit.load_model", lambda name: model)
    shown, *programs = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.M | re.S)
    assert 'positions="content"' in shown
    names = {"__name__": "my_program"}
    for program in programs:
        program = program.replace("[4, 10, 16, 23]", "[0, 1, 2, 3]").replace("d_model=576", "d_model=32")
        exec(program.replace("rank=400", "rank=8"), names)
    adapter, stack = names["adapter"], SiteStack([0, 1, 2, 3])
    rows = self_explain("foxes?", model=model, adapter=adapter, sites=[1, 3])
    assert [row.site for row in rows] == [str(site) for site in (stack.sites[1], stack.sites[3])]
    vectors = read_activations(model, "foxes?", 1).vectors
    (row,) = self_explain(vectors, model=model, adapter=adapter, sites=1, centered=False)
    assert row.evidence == pytest.approx(rows[0].evidence, abs=1e-4)
    table = self_explain("foxes?", model=model, adapter=adapter, positions="content").to_df()
    assert "".join(table["token"]).strip() == "foxes?"
    assert torch.isfinite(torch.tensor(table["log_prob"].dropna().to_numpy())).all()
