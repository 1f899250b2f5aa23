"""Train an SAE of the embedded model, and choose the layer for it by measurement.

    python benchmarks/train_sae.py [benchmarks/configs/smollm2_sae.yaml] --data ../shared/data
    python benchmarks/train_sae.py layers [CONFIG] --data ../shared/data [--sites 7 11 15 19 23] [--passages 1000]

The first reads the residual stream over a corpus, trains the SAE, measures it on passages that it was not trained on,
and finds the contexts in which each feature is most active; the output folder gets `sae/` (which
`interp_toolkit.vectors.load_sae` reads), `quality.csv` and `contexts.safetensors`. `layers` trains a short one at each
of several layers on the same passages, and writes a table of them to benchmarks/results/sae_layers.csv: what each
explains, what the model loses with it, and how many tokens its features are about.

Both can be interrupted at any time, and the same command goes on. The data: `corpus/passages.jsonl.gz` in the folder
given, one JSON object a line with `text` and `split` (`train` or `eval`).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pandas as pd
from scripts import ended, need

from interp_toolkit import load_model
from interp_toolkit.files import whole_file
from interp_toolkit.models import model_facts
from interp_toolkit.sae import Contexts, SAERecipe, sae_quality, store_activations, train_sae, write_contexts
from interp_toolkit.sites import Site

CONFIG = Path(__file__).parent / "configs" / "smollm2_sae.yaml"
RESULTS = Path(__file__).parent / "results" / "sae_layers.csv"
# Of a feature's best contexts, how many are looked at for what they peak on.
_BEST = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", metavar="[layers] [CONFIG]")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="holds corpus/passages.jsonl.gz")
    parser.add_argument("--sites", type=int, nargs="+", default=[7, 11, 15, 19, 23], help="layers to compare")
    parser.add_argument("--passages", type=int, default=1000, help="on which they are compared")
    parser.add_argument("--limit", type=int, metavar="N", help="a trial on N passages, kept in OUTPUT-limit-N")
    options = parser.parse_args()
    names = [name for name in options.what if name != "layers"]
    if len(names) > 1:
        parser.error(f"expected one config, got {', '.join(names)}")
    recipe = SAERecipe.read(names[0] if names else CONFIG)
    need(parser, options.data, recipe.passages)
    if "layers" in options.what:
        print(compare_layers(recipe, options.data, options.sites, options.passages).to_string(index=False))
        return
    if options.limit is not None:
        output = f"{recipe.output}-limit-{options.limit}"
        recipe = replace(recipe, train=options.limit, eval=min(options.limit, recipe.eval or 20), output=output)
    result = recipe.run(options.data, progress=True)
    print(result.quality.to_string(index=False))
    if result.tokens_a_second:
        print(f"activations: {result.tokens_a_second:.0f} tokens a second")


def compare_layers(recipe: SAERecipe, data: Path, layers: list[int], passages: int) -> pd.DataFrame:
    """A short SAE at each layer, on the same passages, one row a layer and metric."""
    model = load_model(recipe.model, dtype=recipe.dtype)
    short = replace(recipe, train=passages, eval=min(40, passages))
    rows, held = (short.rows(model.tokenizer, data, split) for split in ("train", "eval"))
    stores = store_activations(model, rows, [Site.after(layer) for layer in layers], progress=True)
    # Twice over the tokens: short of a full training, and the same for all.
    config = replace(recipe.sae, tokens=max(recipe.sae.batch_size, 2 * rows.tokens))
    tables = []
    for site, store in stores.items():
        folder = Path(f"{recipe.output}-layers") / str(site)
        sae = train_sae(store, config, folder, facts=model_facts(model), progress=True)
        contexts = write_contexts(sae, store, folder / "contexts.safetensors", model.tokenizer, progress=True)
        told = sae_quality(model, sae, held, seed=config.seed, progress=True)
        tables.append(pd.concat([told, _variety(contexts, config.seed)], ignore_index=True).assign(site=str(site)))
    table = pd.concat(tables, ignore_index=True).assign(train_tokens=rows.tokens, passages=passages)
    with whole_file(RESULTS) as draft:
        table.to_csv(draft, index=False)
    return table


def _variety(contexts: Contexts, seed: int, features: int = 300) -> pd.DataFrame:
    """How many different tokens a feature peaks on in its ten best contexts: one for a feature of a single token."""
    alive = contexts.features.query("fires >= 50")["feature"]
    counts = []
    for feature in alive.sample(min(features, len(alive)), random_state=seed):
        found = contexts.of(int(feature), _BEST)
        counts.append(len({tokens[peak].strip().lower() for tokens, peak in zip(found["tokens"], found["peak"])}))
    told = pd.Series(counts, dtype=float)
    half = 1.96 * told.sem()
    row = dict(metric="peak_tokens", value=told.mean(), low=told.mean() - half, high=told.mean() + half)
    return pd.DataFrame([dict(**row, n=len(told), seed=seed)])


if __name__ == "__main__":
    ended(main)
