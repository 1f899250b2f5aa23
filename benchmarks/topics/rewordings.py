"""The shipped adapters on prompts that they were not trained with.

Adapters learn from one wording, "Tell me about {title}.". Here the same held-out titles are asked about in others; each
vector is described once, greedily, and the description is looked up among all titles. A wording moves the mean of the
vectors too: mean `own` takes off the mean of the wording's vectors, where the adapter's contract takes off the mean of
those it was trained with.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.titles import contract_and_site
from interp_toolkit import read_activations
from interp_toolkit.evaluation import description_ranks, recall_table
from interp_toolkit.evaluation.context import EvalContext
from interp_toolkit.results import finished_result, intervals_by_measure, make_result, write_result
from interp_toolkit.shipped import NAMES, find_adapter

WORDINGS = ("Tell me about {title}.", "What do you know about {title}?", "Write a short poem on {title}.")
TITLES = 200
# These chose the weights of one of the adapters.
_CHOOSING = 1000


def measure_rewordings(context: EvalContext, path: Path) -> None:
    """Measure each shipped adapter in each wording; a result with the same settings is left as it is.

    Args:
        context: titles, model and embedder.
        path: of the results file.
    """
    # A trial has fewer titles than chose the weights.
    first = _CHOOSING if context.limit is None else 0
    titles = context.titles.held_out[first : first + TITLES]
    answers = context.answers(titles)
    adapters = {name: find_adapter(name) for name in NAMES}
    settings = context.facts | dict(n=len(titles), digests={name: x.digest for name, x in adapters.items()})
    if finished_result(path, settings):
        print(f"rewordings: done before, see {path}")
        return
    rows = []
    for name, adapter in adapters.items():
        contract, site = contract_and_site(adapter)
        for wording in WORDINGS:
            prompts = [wording.format(title=title) for title in titles]
            raw = read_activations(context.model, prompts, site, progress=True).vectors
            for mean, vectors in (("contract", contract.centre(raw)), ("own", raw - raw.mean(0))):
                texts = context.describe(adapter, vectors, 1).texts
                ranks = description_ranks(texts, context.embed, context.index, answers)[:, 0]
                recall = intervals_by_measure(recall_table(ranks))
                rows.append(dict(adapter=name, wording=wording, mean=mean, **recall))
                print(name, wording, mean, recall["recall@1"], recall["recall@100"], flush=True)
    write_result(path, make_result(settings, context.versions, dict(rewordings=rows)))
