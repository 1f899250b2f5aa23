"""Measure the shipped adapters on prompts that they were not trained with; writes benchmarks/results/rewordings.json.

    python benchmarks/rewordings.py --data ../shared/data [--limit 200]

Adapters learn from one wording, "Tell me about {title}.". Here the same held-out titles are asked about in others; each
vector is described once, greedily, and the description is looked up among all titles. A wording moves the mean of the
vectors too: `own mean` takes the mean of its own vectors off, where the adapter's contract would take off that of the
wording it was trained with.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from scripts import need

from interp_toolkit import read_activations
from interp_toolkit.evaluation import description_ranks, recall_table
from interp_toolkit.evaluation.bench import Bench
from interp_toolkit.results import intervals_by_measure, write_result
from interp_toolkit.shipped import NAMES, find_adapter

RESULTS = Path(__file__).parent / "results" / "rewordings.json"
WORDINGS = ("Tell me about {title}.", "What do you know about {title}?", "Write a short poem on {title}.")
# These chose the weights of one of the adapters.
_CHOOSING = 1000


def measure(bench: Bench, limit: int) -> None:
    titles = bench.titles.held[_CHOOSING : _CHOOSING + limit]
    answers = bench.answers(titles)
    rows: list[dict[str, Any]] = []
    for name in NAMES:
        adapter = find_adapter(name)
        contract = adapter.contract
        assert contract is not None
        assert contract.site is not None
        for wording in WORDINGS:
            prompts = [wording.format(title=title) for title in titles]
            raw = read_activations(bench.model, prompts, contract.site, progress=True).vectors
            for mean, vectors in (("contract", contract.centre(raw)), ("own", raw - raw.mean(0))):
                texts = bench.describe(adapter, vectors, 1).texts
                found = intervals_by_measure(
                    recall_table(description_ranks(texts, bench.embed, bench.index, answers)[:, 0])
                )
                rows.append(dict(adapter=name, wording=wording, mean=mean, **found))
                print(name, wording, mean, found["recall@1"], found["recall@100"], flush=True)
    settings = bench.facts | dict(n=len(titles), digests={name: find_adapter(name).digest for name in NAMES})
    write_result(RESULTS, dict(settings=settings, versions=bench.versions, tables=dict(rewordings=rows)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--limit", type=int, default=200, help="titles (default 200)")
    options = parser.parse_args()
    need(parser, options.data, "topics/topics.jsonl.gz")
    measure(Bench(options.data / "topics" / "topics.jsonl.gz", None), options.limit)
