"""What descriptions of the difference between two models tell of a fine-tune, on 20 fine-tunes whose topic is known.

    python -m benchmarks.difference

First it trains the model organisms into runs/difference: LoRA adapters of the embedded model, 16 on passages of one
article each, four on answers that end in a habit, and five placebos on passages about nothing in particular: half an
hour on two cores. The articles need the whole corpus (--data), and training needs peft (pip install
'interp-toolkit[diff]').

Then it asks whether the right topic is named among the first 1, 3 and 10 descriptions of `describe_difference` on
prompts about other things, beside the first tokens of a logit lens on the mean difference, and beside the words that
the fine-tune writes more often than its base when both answer the same prompts: a quarter of an hour.

It can be interrupted at any time, and the same command goes on. `--limit N` takes the first N topics, trains for two
steps, and writes its results below runs/difference/limit-N.
"""

from __future__ import annotations

from benchmarks.arguments import Folders, make_parser, run
from benchmarks.data import PASSAGES, TITLES, need, need_whole_corpus
from benchmarks.difference.measure import measure
from benchmarks.difference.organisms import TOPICS, make, organisms
from benchmarks.titles import title_context

_PROMPTS = 32


def main() -> None:
    parser = make_parser("benchmarks.difference", __doc__, "a trial on the first N topics")
    options = parser.parse_args()
    need(options.data, TITLES, PASSAGES)
    if options.limit is None:
        need_whole_corpus(options.data)
    folders = Folders.for_run("difference", options.limit)
    context = title_context(options.data, options.limit)
    chosen = organisms(options.limit)
    # Titles of training for what is taught, held-out ones for what is asked.
    taught = [title for title in context.titles.train if title not in TOPICS]
    steps = {} if options.limit is None else dict(steps=2)
    adapters = [make(one, options.data, taught, folders.runs / "organisms", **steps) for one in chosen]
    titles = context.titles.held_out[: _PROMPTS if options.limit is None else 4]
    if len(titles) < 4:
        titles = [*titles, *context.titles.dev[: 4 - len(titles)]]
    measure(context, chosen, adapters, titles, folders.results / "difference.json")


if __name__ == "__main__":
    run(main)
