"""Questions about hidden states: train an adapter to answer, and measure its answers beside controls.

    python -m benchmarks.questions [measure] [--adapter FOLDER]
    python -m benchmarks.questions train
    python -m benchmarks.questions spans

`train` goes on from the adapter for any token, on questions whose right answers are known: what kind of thing a topic
is (from WordNet and Wikidata), which genre a passage has, in which language a phrase is, what a relation connects a
subject with, and how far into a text a token is; and on descriptions, so that it goes on describing. It saves the
adapter in runs/questions/adapter: half an hour on two cores. Genres need the whole corpus (--data).

`measure`, the default, gives the AUROC of its answers for texts that are no part of training, in wordings of training
and in others, and for questions that were never trained on; beside a linear probe on the same vectors, the model that
reads the text itself, the untrained direction, shuffled vectors, and the adapter where training began.

`spans` trains the adapter for any token on the questions that name their answers, once on last tokens and once on the
last eight tokens of the same texts together, and measures the answers of both.

All can be interrupted at any time, and the same command goes on. `--limit` takes N texts of each answer, trains for
two steps, and writes its results below runs/questions/limit-N.
"""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.arguments import Folders, make_parser, run
from benchmarks.data import DATA, KINDS, PASSAGES, TITLES, need, need_whole_corpus
from benchmarks.questions.families import all_questions
from benchmarks.questions.measure import measure
from benchmarks.questions.questions import Question, Sizes, Text
from benchmarks.questions.spans import measure_spans
from benchmarks.questions.training import Reader, answer_pairs, description_pairs, train
from benchmarks.titles import title_context
from interp_toolkit import Adapter, VectorLabelPairs
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.evaluation.context import SEED
from interp_toolkit.json_lines import read_json_lines
from interp_toolkit.shipped import find_adapter

START = "smollm2_any_token"
_EPOCHS = 2
# Questions and steps of training in a trial.
_TRIAL, _TRIAL_STEPS = 6, 2
_WORDING = "Tell me about {title}."


def main() -> None:
    parser = make_parser("benchmarks.questions", __doc__, "a trial on N texts of each answer")
    parser.add_argument("what", choices=["measure", "train", "spans"], nargs="?", default="measure")
    parser.add_argument("--adapter", type=Path, metavar="FOLDER", help="that answers; by default the one of train")
    options = parser.parse_args()
    need(options.data, TITLES, PASSAGES)
    if options.limit is None:
        need_whole_corpus(options.data)
    folders = Folders.for_run("questions", options.limit)
    sizes = Sizes() if options.limit is None else Sizes(options.limit, options.limit)
    context = title_context(options.data, options.limit)
    questions = all_questions(options.data, sizes, SEED)
    if options.limit is not None:
        # One of each family, and one that is not trained on.
        questions = list({(one.family, one.trained): one for one in reversed(questions)}.values())[:_TRIAL]
    start = find_adapter(START)
    reader = Reader(context.model, start.require_contract().require_site())
    max_steps = None if options.limit is None else _TRIAL_STEPS
    path = folders.runs / "adapter" if options.adapter is None else options.adapter
    if options.what == "train":
        pairs = _pairs(questions, reader, start, options.limit)
        train(context.model, pairs, start, _EPOCHS, folders.runs / "training", max_steps).save_pretrained(path)
        print(f"saved in {path}")
        return
    if options.what == "spans":
        measure_spans(context, questions, start, folders.runs, folders.results / "spans.json", max_steps)
        return
    if not path.is_dir():
        raise InterpToolkitError(f"expected an adapter that answers at {path}, and there is none; run train first")
    measure(context, questions, reader, Adapter.from_pretrained(path), start, folders.results / "questions.json")


def _pairs(questions: list[Question], reader: Reader, start: Adapter, limit: int | None) -> VectorLabelPairs:
    titles = [row["title"] for _, row in read_json_lines(DATA / KINDS, "kinds", "an object") if row["split"] == "train"]
    described = [(title, Text(_WORDING.replace("{title}", title), True)) for title in titles[:limit]]
    pairs = [answer_pairs(questions, reader, start), description_pairs(described, reader, start)]
    return VectorLabelPairs.concat(pairs)


if __name__ == "__main__":
    torch.manual_seed(SEED)
    run(main)
