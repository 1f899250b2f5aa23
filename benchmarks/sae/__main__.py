"""SAE features from corpus to table: do descriptions beat the labels that an adapter was trained on?

    python -m benchmarks.sae [labels] [--config FILE] --data FOLDER
    python -m benchmarks.sae train [--config FILE] --data FOLDER
    python -m benchmarks.sae layers [--config FILE] [--sites 3 7 11 15 19 23] [--passages 1000] --data FOLDER
    python -m benchmarks.sae llm_labels --data FOLDER
    python -m benchmarks.sae table

`labels`, the default, goes all the way:

1. The SAE, with the contexts of its features: that of `train`, which is trained here if it is not there yet.
2. Original labels, by distinctive words of every second top activating example of a feature. No larger model is used,
   and so they are not what a larger model would say; the results name the labeller.
3. Six adapters: of a simple and an expressive kind, each on features, on topics, and on both, with as many steps; each
   measured on held-out features and held-out titles by what labels cost (the transfer table), beside the untrained
   direction at its best length.
4. Labels of held-out features from each source, six per feature, with as many texts for each label: descriptions of the
   adapters trained on features, of the untrained direction, the original label as it is (each time with new texts), in
   six wordings, another feature's labels, and labels drawn at random. A rate is the share of texts on which the feature
   is active; strict_rate looks at the text's own tokens alone, and asks for more than the feature's own 99th percentile
   on neutral text. Detection asks an embedder to tell apart contexts that the labels were not made from.
5. Descriptions beside labels, the farthest apart first.

`train` reads the residual stream over a corpus, trains the SAE, measures it on passages that it was not trained on, and
finds the contexts in which each feature is most active; the output folder gets `sae/` (which
`interp_toolkit.sae.load` reads), `quality.csv` and `contexts.safetensors`.

`layers` trains a short SAE at each of several layers on the same passages, and writes a table of them to
benchmarks/results/sae_layers.csv: what each explains, what the model loses with it, how many tokens its features are
about, and how well the model can read their directions before any adapter is trained.

`llm_labels` asks the claim of a language model's labels, as the paper does: the embedded model labels all live features
of the tutorial's SAE, adapters are trained on these labels, and on 220 features that chose nothing they are compared
with labels of the same kind, with distinctive words and with chance (benchmarks/results/sae_labels/llm_labels.json).

`table` prints the results of `labels` that are there.

At ten descriptions or texts of up to 40 tokens, seven pairs trained, seventeen labels scored and two thousand tokens
read per second, as one slow core does them: six trainings of 3,072 pairs 45 minutes, the choice of lengths and all
losses 15, 1,080 descriptions 2, 8,400 texts 14 to 40, reading these 6: less than two hours. The SAE of step 1 is not in
it: half an hour, once.

All can be interrupted at any time, and the same command goes on: results are files in benchmarks/results, adapters are
in runs/sae_labels, everything else in the cache folder. `--limit` writes below runs/, and runs on the sample of
passages that comes with the repository; a whole run wants more of them (see benchmarks/data/README.md).
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.arguments import CONFIGS, RESULTS, Folders, make_parser, run
from benchmarks.data import TITLES, need, need_whole_corpus
from benchmarks.sae.adapters import CELLS, run_cell, run_untrained
from benchmarks.sae.ground import Ground
from benchmarks.sae.layers import compare_layers
from benchmarks.sae.llm_labels import run_llm_labels
from benchmarks.sae.scores import run_scores
from benchmarks.sae.tables import tables
from benchmarks.sae.train import train
from interp_toolkit.sae import SAERecipe


def main() -> None:
    parser = make_parser("benchmarks.sae", __doc__, "a trial: a tiny SAE and N features; for train, N passages")
    parser.add_argument(
        "what", choices=["labels", "train", "layers", "llm_labels", "table"], nargs="?", default="labels"
    )
    parser.add_argument("--config", type=Path, default=CONFIGS / "smollm2_sae.yaml", metavar="FILE", help="of the SAE")
    parser.add_argument("--sites", type=int, nargs="+", default=[3, 7, 11, 15, 19, 23], help="layers to compare")
    parser.add_argument("--passages", type=int, default=1000, help="on which layers are compared")
    options = parser.parse_args()
    folders = Folders.for_run("sae_labels", options.limit)
    if options.what == "table":
        print(tables(folders.results))
        return
    recipe = SAERecipe.read(options.config)
    (need if options.limit else need_whole_corpus)(options.data, recipe.passages)
    if options.what == "layers":
        passages = options.passages if options.limit is None else min(options.limit, options.passages)
        results = RESULTS if options.limit is None else folders.results
        table = compare_layers(recipe, options.data, options.sites, passages, results / "sae_layers.csv")
        print(table.to_string(index=False))
    elif options.what == "llm_labels":
        run_llm_labels(recipe, options.data, options.limit, folders)
    elif options.what == "train":
        train(recipe, options.data, options.limit)
    else:
        need(options.data, TITLES)
        ground = Ground(recipe, options.data, options.limit)
        lengths = run_untrained(ground, folders.results)
        for cell in CELLS.values():
            run_cell(cell, ground, lengths[cell.source], folders)
        run_scores(ground, lengths["sae"], folders)
        print(tables(folders.results))


if __name__ == "__main__":
    run(main)
