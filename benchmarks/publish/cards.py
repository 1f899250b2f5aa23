"""The cards of the shipped adapters, from benchmarks/results."""

from __future__ import annotations

from huggingface_hub import ModelCard

from benchmarks.arguments import RESULTS, SHIPPED
from benchmarks.publish.card_metadata import card_metadata
from benchmarks.publish.token_card import TOKEN_ADAPTER, token_card
from interp_toolkit.adapters.cards import TRAINING_SETTINGS, introduction
from interp_toolkit.json_lines import read_json
from interp_toolkit.results import percent_text, read_result
from interp_toolkit.shipped import find_stored


def card(name: str) -> str:
    """What a shipped adapter is, was trained on, measures, and cannot do."""
    if name == TOKEN_ADAPTER:
        return token_card()
    result = read_result(RESULTS / "shipped_adapters.json")
    row, settings = result["adapters"][name], result["settings"]
    config = read_json(SHIPPED / name / "adapter_config.json", "an adapter's config")
    contract, run = config["contract"], config["metadata"]
    recall_texts = ", ".join(f"@{k} {percent_text(row['retrieval'][f'recall@{k}'])}" for k in (1, 5, 10, 100))
    examples = "\n".join(f"| {pair['title']} | {pair['description']} |" for pair in row["examples"])
    training = ", ".join(f"{key} {run[key]}" for key in TRAINING_SETTINGS if key in run)
    threshold = contract["threshold"]
    start = f" It began as the best fit of its rank to the larger adapter `{run['start']}`." if "start" in run else ""
    accumulated = run.get("gradient_accumulation_steps") or run["accumulate"]  # the name in adapters of version 0.1
    seen = int(run["global_step"]) * int(run["batch_size"]) * int(accumulated)
    text = f"""# {name}

{introduction(find_stored(name))}

**Data.** Contrastive topic vectors: the residual stream at the last token of `{run["prompt"]}` in the
chat template, less its mean over the training topics; labels are the titles. {seen:,} pairs, drawn from
{int(run["train_vectors"]):,} titles of Wikipedia's vital articles (split `train`).

**Training.** `benchmarks/configs/{name}.yaml`, run by `python -m benchmarks.publish make`:
{training}.{start}
The weights are those of step {run["global_step"]}, with a loss of {float(run["best_val_loss"]):.3f} nats per token on
{run["val_examples"]} further titles, which figure in nothing else.

**Figures** on held-out titles (split `{settings["split"]}`, n = {row["n"]:,}, seed {settings["seed"]}): loss (on
{row["scored"]:,} of them) {row["loss"]:.2f} nats per token given the title's own vector,
{row["shuffled_loss"]:.2f} given another's and {row["null_loss"]:.2f} given none. Recall among {settings["index"]:,}
titles by {settings["embedder"]}, {settings["protocol"]}, with 95% bootstrap intervals: {recall_texts}.

| title | description |
|---|---|
{examples}

**Limits.** It names topics, in the style of a title, and knows what a model of this size knows. It was trained
on one place and one way of asking; at other layers, tokens and kinds of vectors it is a guess. Read the evidence:
near zero, the description is what the bias says about nothing; {threshold["value"]:.2f} nats per token is the threshold
of `self_explain`, which at most {100 * threshold["false_positive_rate"]:.0f}% of texts about other vectors reach, or
about random ones. It was trained on English titles alone.
"""
    recalls = {k: row["retrieval"][f"recall@{k}"][0] for k in (1, 5, 10, 100)}
    metadata = card_metadata(name, contract, settings, "titles of Wikipedia's vital articles", recalls)
    return str(ModelCard(f"---\n{metadata}\n---\n\n{text}"))
