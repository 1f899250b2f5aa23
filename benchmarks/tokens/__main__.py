"""Reading any token in any wording: train an adapter for it, and measure adapters on wordings and tokens.

    python -m benchmarks.tokens [measure] [--adapters NAME ...]
    python -m benchmarks.tokens train
    python -m benchmarks.tokens depth

`measure`, the default, describes held-out titles in five wordings that no adapter was trained on and in one of
training, at the title's last token and at the last token of the prompt, and looks the descriptions up among all titles.
It describes tokens of passages (split `eval`) and asks whether the token's word is named, or a content word within ten
before or after it, beside the description of another token; whether facts are named at their subjects; and how far the
confidence of descriptions can be trusted. Nothing is chosen by these titles, passages and facts. Three adapters take
half an hour on one core; the SAE of the features takes ten minutes more, once.

`train` trains an adapter on topics in many wordings and on tokens of passages, calibrates its thresholds and its
confidence (for which it trains an SAE), fits its way back, and saves it in runs/tokens/adapter: twenty minutes on an
H100, half a day on two cores, of which reading the vectors takes half an hour. It needs the whole corpus (--data).

`depth` measures what a vector for each place of the default adapter, trained while all else is frozen, takes off the
loss: ten minutes.

All can be interrupted at any time, and the same command goes on. `--limit` takes the first titles and texts, and writes
its results below runs/tokens/limit-N.
"""

from __future__ import annotations

from benchmarks.arguments import Folders, make_parser, run
from benchmarks.data import PASSAGES, TITLES, need, need_whole_corpus
from benchmarks.titles import title_context
from benchmarks.tokens.confidence import calibrated
from benchmarks.tokens.depth import measure_depth
from benchmarks.tokens.measure import measure
from benchmarks.tokens.training import Sizes, train, with_way_back
from interp_toolkit.shipped import NAMES, find_adapter


def main() -> None:
    parser = make_parser("benchmarks.tokens", __doc__, "a trial on the first N titles and texts")
    parser.add_argument("what", choices=["measure", "train", "depth"], nargs="?", default="measure")
    parser.add_argument("--adapters", nargs="+", metavar="NAME", default=list(NAMES), help="shipped, paths or hub ids")
    options = parser.parse_args()
    need(options.data, TITLES, PASSAGES)
    folders = Folders.for_run("tokens", options.limit)
    context = title_context(options.data, options.limit)
    if options.what == "train":
        if options.limit is None:
            need_whole_corpus(options.data)
        sizes = Sizes.for_limit(options.limit)
        adapter = train(context, options.data, sizes, folders.runs / "training")
        if options.limit is None:
            adapter = with_way_back(context, calibrated(context, options.data, adapter, sizes))
        adapter.save_pretrained(folders.runs / "adapter")
        print(f"saved in {folders.runs / 'adapter'}")
        return
    if options.what == "depth":
        measure_depth(context, find_adapter(NAMES[0]), folders.results / "depth.json")
        return
    adapters = {name: find_adapter(name) for name in options.adapters}
    measure(context, options.data, adapters, folders.results / "tokens.json")


if __name__ == "__main__":
    run(main)
