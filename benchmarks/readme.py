"""Write the outputs and tables of the README and of docs/, and the shipped adapters' cards, from benchmarks/results.

A test fails where they are stale.

python benchmarks/readme.py
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from claims import CLAIMS, transfer_frame
from trust_table import trust_table

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
_SCORED = ("generation", "detection")
_MEASURED = dict(sae="features", topics="titles")
SHIPPED = ROOT / "interp_toolkit" / "shipped"


def demo() -> str:
    return "```\n" + (RESULTS / "demo.txt").read_text().rstrip() + "\n```"


def shipped() -> str:
    told = json.loads((RESULTS / "shipped_adapters.json").read_text())
    lines = _head("adapter", "parameters", "loss", "other vectors", "no vector", "recall@1", "recall@10", "recall@100")
    for name, row in told["adapters"].items():
        recalls = [_percent(row["retrieval"][f"recall@{k}"]) for k in (1, 10, 100)]
        losses = [f"{row[key]:.2f}" for key in ("loss", "shuffled_loss", "null_loss")]
        lines.append(f"| `{name}` | {row['parameters']:,} | {' | '.join(losses + recalls)} |")
    ceiling = [_percent(told["title_to_itself"][f"recall@{k}"]) for k in (1, 10, 100)]
    lines.append(f"| the title itself | | | | | {' | '.join(ceiling)} |")
    lines.append("")
    settings, rows = told["settings"], told["adapters"].values()
    counts = " and ".join(f"{n:,}" for n in sorted({row["n"] for row in rows}))
    lines.append(
        f"Held-out titles (split `{settings['split']}`, n = {counts}; losses on {max(row['scored'] for row in rows):,} "
        f"of them, seed {settings['seed']}); loss in nats a token of the right title given its vector, another title's "
        f"vector, and none; {settings['protocol']}, looked up among {settings['index']:,} titles by "
        f"{settings['embedder']}; 95% bootstrap intervals. The first is the default."
    )
    return "\n".join(lines)


def rewordings() -> str:
    told = json.loads((RESULTS / "rewordings.json").read_text())
    rows, settings = told["tables"]["rewordings"], told["settings"]
    wordings = list(dict.fromkeys(row["wording"] for row in rows))
    lines = _head("adapter", "mean", *(f"*{wording.replace('{title}', '…')}*" for wording in wordings))
    for name in dict.fromkeys(row["adapter"] for row in rows):
        for mean in ("contract", "own"):
            cells = [row["recall@1"] for row in rows if (row["adapter"], row["mean"]) == (name, mean)]
            lines.append(f"| `{name}` | {mean} | {' | '.join(map(_percent, cells))} |")
    lines.append("")
    lines.append(
        f"Recall@1 of {settings['n']} held-out titles (seed {settings['seed']}) asked about in three wordings, the "
        f"first that of training; less the mean that the adapter carries (contract), or that of the wording's own "
        f"vectors (own); one greedy description a vector, 95% bootstrap intervals."
    )
    return "\n".join(lines)


def speed() -> str:
    told = json.loads((RESULTS / "speed.json").read_text())
    lines = _head("what", "times as fast", "range", "target", "a second", "share of peak")
    for name, row in told["comparisons"].items():
        if row["ratio"] is None:
            lines.append(f"| {name} | not measured: {row['note']} | | {row['target']} | | |")
            continue
        rate = f"{row['rate']:.1f}" if "rate" in row else ""
        share = f"{100 * row['share_of_peak']:.0f}%" if "share_of_peak" in row else ""
        span = f"{row['lowest']:.2f} to {row['highest']:.2f}"
        lines.append(f"| {name} | {row['ratio']:.2f} | {span} | {row.get('target', '')} | {rate} | {share} |")
    machine, memory = told["machine"], told.get("training_step_bytes") or {}
    lines.append("")
    lines.append(
        f"Training (pairs a second, batches of {told['batch']}) against a plain loop over Hugging Face's model: the "
        f"whole prompt for each example, logits at every position. Storing activations (tokens a second) against its "
        f"hidden states of every layer. Describing (descriptions a second, {told['vectors']} vectors, "
        f"{told['new_tokens']} new tokens) against its `generate`. Median ratio of alternating runs in one process, on "
        f"{machine['processor']} with {machine['threads']} threads, at equal dtype, but where a "
        f"row names the default dtype: there the other side is in float32. `python benchmarks/speed.py` measures it "
        f"anew."
    )
    for name, row in told["comparisons"].items():
        for steps, after in row.get("validation_loss_after", {}).items():
            lines.append(
                f"Loss after {steps} steps, {name}: ours {after['ours']:.3f}, plain loop {after['plain']:.3f}."
            )
    if all(memory.values()) and memory:
        said = ", ".join(f"{side} {taken / 1e9:.2f} GB" for side, taken in memory.items())
        lines.append(f"Memory of a training step beside the model, at its peak: {said}.")
    return "\n".join(lines)


def trust() -> str:
    rows = trust_table(RESULTS / "trust").to_dict("records")
    lines = _head("NAME", "what", "value", "95% interval", "n")
    for row in rows:
        span = f"{row['low']:.3f} to {row['high']:.3f}"
        lines.append(f"| `{row['measurement']}` | {row['what']} | {row['value']:.3f} | {span} | {row['n']:,} |")
    return "\n".join(lines)


def sae_layers() -> str:
    told = pd.read_csv(RESULTS / "sae_layers.csv")
    names = ("vector_gain", "best_length", "peak_tokens", "explained_variance", "loss_spliced", "loss_recovered")
    lines = _head("site", *names)
    for site, rows in told.groupby("site", sort=False):
        by_name = {row["metric"]: row for row in rows.to_dict("records")}
        lines.append(f"| `{site}` | " + " | ".join(_interval(by_name[name]) for name in names) + " |")
    return "\n".join(lines)


def sae_quality() -> str:
    rows = pd.read_csv(ROOT / "tutorials" / "sae" / "quality.csv").to_dict("records")
    lines = _head("", "value (95% interval)", "n")
    lines += [f"| {row['metric']} | {_interval(row)} | {row['n']:,} |" for row in rows]
    return "\n".join(lines)


def sae_scores() -> str:
    path = RESULTS / "sae_labels" / "scores.json"
    if not path.exists():
        return "Not measured yet."
    told = json.loads(path.read_text())["tables"]
    found = {(row["source"], row["score"], row["protocol"], row["what"]): row for x in _SCORED for row in told[x]}
    best = "best label"
    asked = [
        ("any token, best label", "rate", best),
        ("strict, best label", "strict_rate", best),
        ("strict, best label chosen by other texts", "strict_rate", f"{best}, chosen by other texts"),
        ("detection, best label", "auroc", best),
        ("detection, mean of labels", "auroc", "mean of labels"),
    ]
    lines = _head("labels", *(name for name, *_ in asked))
    for source in dict.fromkeys(source for source, *_ in found):
        keys = [(source, score, protocol, "mean") for _, score, protocol in asked]
        cells = [_interval(found[key]) if key in found else "" for key in keys]
        lines.append(f"| {source} | {' | '.join(cells)} |")
    row = found["original label, reworded", "rate", best, "mean"]
    lines.append("")
    lines.append(
        f"Share of texts on which the feature is active, and area under the curve of detection (chance 0.5 for one "
        f"label, more for the best of six); n = {row['n']} features, {row['tries']} labels a feature, "
        f"seed {row['seed']}."
    )
    return "\n".join(lines)


def sae_transfer() -> str:
    told = transfer_frame().set_index(["kind", "trained_on", "measured_on", "rows", "measure"])
    asked = [(of, rows) for of in ("sae", "topics") for rows in ("held", "train")]
    lines = _head(
        "adapter", "trained on", *(f"{_MEASURED[of]}, {'held out' if rows == 'held' else 'seen'}" for of, rows in asked)
    )
    for kind, source in dict.fromkeys((kind, source) for kind, source, *_ in told.index):
        cells = []
        for key in ((kind, source, of, rows) for of, rows in asked):
            if (*key, "loss") not in told.index:
                cells.append("")
                continue
            loss, other = (told.loc[(*key, measure)].to_dict() for measure in ("loss", "more with another's vector"))
            cells.append(f"{_interval(loss)}; {other['value']:+.2f}")
        lines.append(f"| {kind} | {_MEASURED.get(source, source)} | {' | '.join(cells)} |")
    n = sorted(set(told["n"]))
    lines.append("")
    lines.append(
        f"Nats a token that a label costs given its own vector, with its 95% interval, and how much more it costs "
        f"given another's; n = {' or '.join(map(str, n))} for each figure."
    )
    return "\n".join(lines)


def dtypes() -> str:
    result = json.loads((RESULTS / "dtypes.json").read_text())
    lines = _head(
        "adapter",
        "evidence, bfloat16 less float32: mean, SD, greatest",
        "within 0.02",
        "verdicts that differ",
        "threshold, float32 (95% interval)",
        "threshold, bfloat16",
    )
    for row in result["tables"]["dtypes"]:
        difference = ", ".join(f"{row[key]:.3f}" for key in ("mean_difference", "sd_difference", "max_difference"))
        lines.append(
            f"| `{row['adapter']}` | {difference} | {row['within_002']:.0%} | {row['verdicts_that_differ']:.1%} | "
            f"{row['threshold']:.2f} ({row['low']:.2f} to {row['high']:.2f}) | {row['threshold_bfloat16']:.2f} |"
        )
    settings = result["settings"]
    lines.append("")
    lines.append(
        f"Nats per token; the same greedy descriptions of {settings['n']} held-out titles, thresholds from as many "
        f"training titles, seed {settings['seed']}, on a processor {'with' if settings['amx'] else 'without'} AMX. "
        f"Made by `python benchmarks/dtypes.py`."
    )
    return "\n".join(lines)


def verdicts() -> str:
    lines = _head("claim", "the paper's figure", "measured here", "verdict")
    for notebook, make in CLAIMS.items():
        claim = make()
        found = "<br>".join(
            f"{check.what}: {check.value:.3g} ({check.low:.3g} to {check.high:.3g}, n {check.n:,}), "
            f"{'' if check.holds else 'not '}{check.needs}"
            for check in claim.checks
        )
        verdict = f"[{claim.verdict}](benchmarks/{notebook}.ipynb)"
        lines.append(f"| {claim.says} | {claim.paper} | {found or claim.differs} | {verdict} |")
    return "\n".join(lines)


def _head(*names: str) -> list[str]:
    return [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]


def _interval(row: dict[str, Any]) -> str:
    value, low, high = (row[key] for key in ("value", "low", "high"))
    return f"{value:.3g}" if low is None or low != low else f"{value:.3g} ({low:.3g} to {high:.3g})"


def _percent(told: list[float]) -> str:
    value, low, high = (100 * x for x in told)
    return f"{value:.1f}% ({low:.1f} to {high:.1f})"


# file: name of a block in it, and what makes it
BLOCKS: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"demo": demo, "shipped": shipped, "rewordings": rewordings, "speed": speed},
    "docs/evaluation.md": {"trust": trust},
    "docs/claims.md": {"verdicts": verdicts},
    "docs/how-to/reading-evidence.md": {"dtypes": dtypes},
    "docs/sae.md": {
        "sae layers": sae_layers,
        "sae quality": sae_quality,
        "sae scores": sae_scores,
        "sae transfer": sae_transfer,
    },
}


def filled(file: str) -> str:
    """A file of `BLOCKS` with every block made anew."""
    text = (ROOT / file).read_text()
    for name, make in BLOCKS[file].items():
        begin, end = f"<!-- begin {name}: made by benchmarks/readme.py -->", f"<!-- end {name} -->"
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), flags=re.S)
        block = f"{begin}\n{make()}\n{end}"
        text, count = pattern.subn(lambda _, block=block: block, text)
        assert count == 1, f"{file} has {count} blocks named {name}"
    return text


def card(name: str) -> str:
    """What a shipped adapter is, was trained on, measures, and cannot do."""
    told = json.loads((RESULTS / "shipped_adapters.json").read_text())
    row, facts = told["adapters"][name], json.loads((SHIPPED / name / "adapter_config.json").read_text())
    contract, run = facts["contract"], facts["metadata"]
    recalls = ", ".join(f"@{k} {_percent(row['retrieval'][f'recall@{k}'])}" for k in (1, 5, 10, 100))
    examples = "\n".join(f"| {pair['title']} | {pair['description']} |" for pair in row["examples"])
    chosen, settings = ", ".join(f"{key} {run[key]}" for key in _SETTINGS if key in run), told["settings"]
    sites, tokens = (facts["adapter"][key] for key in ("sites", "tokens"))
    read = "a vector read at" if sites == 1 else f"the vectors of one token at {sites} sites, side by side, read at"
    made = "a soft token" if tokens == 1 else f"{tokens} soft tokens"
    threshold = contract["threshold"]
    begun = f" It began as the best fit of its rank to the larger adapter `{run['start']}`." if "start" in run else ""
    accumulated = run.get("gradient_accumulation_steps") or run["accumulate"]  # the name in adapters of version 0.1
    seen = int(run["global_step"]) * int(run["batch_size"]) * int(accumulated)
    return f"""# {name}

An adapter of kind `{facts["adapter"]["kind"]}` with {row["parameters"]:,} parameters, for {contract["model_id"]}
(revision `{contract["revision"]}`). It turns {read}
`{contract["site"]}`,
centred by the mean it carries, into {made} from which the model says what the vector means. Method: arXiv 2602.10352.

**Data.** Contrastive topic vectors: the residual stream at the last token of `{run["prompt"]}` in the
chat template, less its mean over the training topics; labels are the titles. {seen:,} pairs, drawn from
{int(run["train_vectors"]):,} titles of Wikipedia's vital articles (split `train`).

**Training.** `benchmarks/configs/{name}.yaml`, run by `python benchmarks/shipped_adapters.py make`:
{chosen}.{begun}
The weights are those of step {run["global_step"]}, with a loss of {float(run["best_val_loss"]):.3f} nats a token on
{run["val_examples"]} further titles, which figure in nothing else.

**Figures** on held-out titles (split `{settings["split"]}`, n = {row["n"]:,}, seed {settings["seed"]}): loss (on
{row["scored"]:,} of them) {row["loss"]:.2f} nats a token given the title's own vector, {row["shuffled_loss"]:.2f} given
another's and {row["null_loss"]:.2f} given none. Recall among {settings["index"]:,} titles by {settings["embedder"]},
{settings["protocol"]}, with 95% bootstrap intervals: {recalls}.

| title | description |
|---|---|
{examples}

**Limits.** It names topics, in the style of a title, and knows what a model of this size knows. It was trained
on one place and one way of asking; at other layers, tokens and kinds of vectors it is a guess. Read the evidence:
near zero, the description is what the bias says about nothing; from {threshold["value"]:.2f} nats a token on,
`self_explain` calls it a reading, which at most {100 * threshold["false_positive_rate"]:.0f}% of texts about other
vectors reach, or about random ones. It was trained on English titles alone.
"""


_SETTINGS = (
    "batch_size",
    "lr",
    "scale_lr",
    "matrix_lr",
    "weight_decay",
    "clip",
    "max_grad_norm",
    "warmup_steps",
    "seed",
    "dtype",
)


if __name__ == "__main__":
    for file in BLOCKS:
        whole = filled(file)
        (ROOT / file).write_text(whole)
    for folder in sorted(SHIPPED.glob("smollm2_*")):
        (folder / "README.md").write_text(card(folder.name))
