"""SAE features from corpus to table: do descriptions beat the labels that an adapter was trained on?

    python benchmarks/sae_labels.py [benchmarks/configs/smollm2_sae.yaml] --data ../shared/data [--limit N]
    python benchmarks/sae_labels.py table

1. The SAE, with the contexts of its features: that of train_sae.py, which is trained here if it is not there yet.
2. Original labels, by distinctive words of every other one of a feature's best contexts. No larger model is asked, and
   so they are not what a larger model would say; the results name the labeller.
3. Six adapters: of a simple and an expressive kind, each on features, on topics, and on both, with as many steps; each
   measured on held-out features and held-out titles by what labels cost (the transfer table), beside the untrained
   direction at its best length.
4. Labels of held-out features from each source, six a feature, with as many texts for each label: descriptions of the
   adapters trained on features, of the untrained direction, the original label as it is (each time with new texts), in
   six wordings, another feature's labels, and labels drawn at random. A rate is the share of texts on which the feature
   is active; strict_rate looks at the text's own tokens alone, and asks for more than the feature's own 99th percentile
   on neutral text. Detection asks an embedder to tell contexts that the labels were not made of.
5. Descriptions beside labels, the farthest apart first.

At ten descriptions or texts of up to 40 tokens a second, seven pairs trained, seventeen labels scored and two thousand
tokens read a second, as one slow core does them: six trainings of 3,072 pairs 45 minutes, the choice of lengths and
all losses 15, 1,080 descriptions 2, 8,400 texts 14 to 40, reading these 6: less than two hours. The SAE of step 1 is
not in it: half an hour, once.

It can be interrupted at any time, and the same command goes on: results are files in benchmarks/results/sae_labels,
adapters are kept in runs/sae_labels, everything else in the cache folder. `--limit 3` is a trial of less than two
minutes on three features and a tiny SAE; it keeps its results in runs/sae_labels/limit-3. `table` prints what is there.

The data: `corpus/passages.jsonl.gz` in the folder given, one JSON object a line with `text` and `split` (`train` or
`eval`); and `topics/topics.jsonl.gz`, with `title` and `split` (`train` or `val`).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd
from sae_adapters import CELLS, run_cell, run_untrained, transfer_table
from sae_ground import Ground
from sae_scores import run_scores
from scripts import ended, need

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.sae import SAERecipe
from interp_toolkit.tables import frame_text

CONFIG = Path(__file__).parent / "configs" / "smollm2_sae.yaml"
RESULTS = Path(__file__).parent / "results" / "sae_labels"
RUNS = Path("runs") / "sae_labels"
_WIDTH = 120


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", metavar="[table] [CONFIG]")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="holds corpus and topics")
    parser.add_argument("--limit", type=int, metavar="N", help="a trial on N features and a tiny SAE")
    options = parser.parse_args()
    names = [name for name in options.what if name != "table"]
    if len(names) > 1:
        parser.error(f"expected one config, got {', '.join(names)}")
    if options.limit is not None and options.limit < 2:
        parser.error(f"expected --limit of at least 2, got {options.limit}")
    runs = RUNS if options.limit is None else RUNS / f"limit-{options.limit}"
    results = RESULTS if options.limit is None else runs / "results"
    if "table" in options.what:
        print(tables(results))
        return
    recipe = SAERecipe.read(names[0] if names else CONFIG)
    need(parser, options.data, recipe.passages, "topics/topics.jsonl.gz")
    ground = Ground(recipe, options.data, options.limit)
    lengths = run_untrained(ground, results)
    for cell in CELLS.values():
        run_cell(cell, ground, lengths[cell.source], results, runs)
    run_scores(ground, lengths["sae"], results, runs)
    print(tables(results))


def tables(results: Path) -> str:
    """What is there, for a terminal."""
    parts = []
    transfer = transfer_table(results)
    if len(transfer):
        parts.append(("what labels cost, in nats a token", transfer))
    path = results / "scores.json"
    if path.exists():
        told = {name: pd.DataFrame(rows) for name, rows in json.loads(path.read_text())["tables"].items()}
        shown = ["source", "score", "protocol", "value", "low", "high", "n", "tries", "seed"]
        for name in ("generation", "detection"):
            means, gaps = (told[name][mask] for mask in (told[name]["what"] == "mean", told[name]["what"] != "mean"))
            parts += [(name, means[shown]), (f"{name}, {gaps['what'].iloc[0]}", gaps[[*shown, "p"]])]
        parts += [("descriptions and labels", told["agreement"]), ("the SAE", told["sae"])]
    if not parts:
        raise InterpToolkitError(f"expected results in {results}, and there are none; run without `table`")
    return "\n\n".join(f"{title}\n{frame_text(frame, _WIDTH)}" for title, frame in parts)


if __name__ == "__main__":
    ended(main)
