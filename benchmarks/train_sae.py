"""Train an SAE of the embedded model, and choose the layer for it by measurement.

    python benchmarks/train_sae.py [benchmarks/configs/smollm2_sae.yaml] --data ../shared/data
    python benchmarks/train_sae.py layers [CONFIG] --data ../shared/data [--sites 3 7 11 15 19 23] [--passages 1000]

The first reads the residual stream over a corpus, trains the SAE, measures it on passages that it was not trained on,
and finds the contexts in which each feature is most active; the output folder gets `sae/` (which
`interp_toolkit.sae.load_sae` reads), `quality.csv` and `contexts.safetensors`. `layers` trains a short one at each
of several layers on the same passages, and writes a table of them to benchmarks/results/sae_layers.csv: what each
explains, what the model loses with it, how many tokens its features are about, and how well the model can read their
directions before any adapter is trained: what their labels cost, and how much more given another feature's direction.

Both can be interrupted at any time, and the same command goes on. The data: `corpus/passages.jsonl.gz` in the folder
given, one JSON object a line with `text` and `split` (`train` or `eval`).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from sae_layers import compare_layers
from scripts import ended, need

from interp_toolkit.sae import SAERecipe

CONFIG = Path(__file__).parent / "configs" / "smollm2_sae.yaml"
RESULTS = Path(__file__).parent / "results" / "sae_layers.csv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", metavar="[layers] [CONFIG]")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="holds corpus/passages.jsonl.gz")
    parser.add_argument("--sites", type=int, nargs="+", default=[3, 7, 11, 15, 19, 23], help="layers to compare")
    parser.add_argument("--passages", type=int, default=1000, help="on which they are compared")
    parser.add_argument("--limit", type=int, metavar="N", help="a trial on N passages, kept in OUTPUT-limit-N")
    options = parser.parse_args()
    names = [name for name in options.what if name != "layers"]
    if len(names) > 1:
        parser.error(f"expected one config, got {', '.join(names)}")
    recipe = SAERecipe.read(names[0] if names else CONFIG)
    need(parser, options.data, recipe.passages)
    if "layers" in options.what:
        table = compare_layers(recipe, options.data, options.sites, options.passages, RESULTS)
        print(table.to_string(index=False))
        return
    if options.limit is not None:
        output = f"{recipe.output}-limit-{options.limit}"
        recipe = replace(recipe, train=options.limit, eval=min(options.limit, recipe.eval or 20), output=output)
    result = recipe.run(options.data, progress=True)
    print(result.quality.to_string(index=False))
    if result.tokens_per_second:
        print(f"activations: {result.tokens_per_second:.0f} tokens a second")


if __name__ == "__main__":
    ended(main)
