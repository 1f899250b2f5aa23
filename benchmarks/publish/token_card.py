"""The card of the adapter for any token, from benchmarks/results/tokens."""

from __future__ import annotations

import numpy as np
from huggingface_hub import ModelCard

from benchmarks.arguments import RESULTS, SHIPPED
from benchmarks.publish.card_metadata import card_metadata
from benchmarks.publish.token_tables import (
    NAMED_COLUMNS,
    RECALL_COLUMNS,
    TOKEN_ADAPTER,
    confidence_rows,
    named_rows,
    recall_rows,
)
from interp_toolkit.json_lines import read_json
from interp_toolkit.results import markdown_table, read_result

_THRESHOLD_COLUMNS = {"site": "`{site}`", "threshold": "{value:.2f}"}


def token_card() -> str:
    """What the adapter is, was trained on, measures, and cannot do."""
    result = read_result(RESULTS / "tokens" / "tokens.json")
    config = read_json(SHIPPED / TOKEN_ADAPTER / "adapter_config.json", "an adapter's config")
    contract, run, settings = config["contract"], config["metadata"], result["settings"]
    recalls = [row for row in recall_rows(result) if row["adapter"] == TOKEN_ADAPTER]
    named = [row for row in named_rows(result) if row["adapter"] == TOKEN_ADAPTER]
    thresholds = [dict(site=place["site"], **place["threshold"]) for place in (contract, *contract["more"])]
    last, text, features = confidence_rows(result)
    errors = [f"{row['calibration error']['value']:.3f}" for row in (last, text, features)]
    areas = [
        f"{row['AUROC']['value']:.2f} (by evidence alone {row['AUROC, evidence']['value']:.2f})"
        for row in (last, text, features)
    ]
    text_of = f"""# {TOKEN_ADAPTER}

An adapter of kind `{config["adapter"]["kind"]}` of rank {config["adapter"]["rank"]}, for {contract["model_id"]}
(revision `{contract["revision"]}`), that reads any token of any text, at four sites together or at each of them alone.
`self_explain` takes it by default. Method: arXiv 2602.10352.

**Data.** {run["data"]}

**Training.** `python -m benchmarks.tokens train`: batch_size {run["batch_size"]}, lr {run["lr"]}, seed {run["seed"]},
dtype {run["dtype"]}, on {run["device"]}. {run.get("training", "")}

**Topics.** Recall of {settings["n"]} held-out titles (split `{settings["split"]}`) among {settings["index"]:,} by
{settings["embedder"]}, one greedy description: in a wording of training ("Tell me about …"), and the mean over five
wordings that it was not trained on.

{markdown_table(recalls, RECALL_COLUMNS)}

**Tokens of text.** Descriptions of {text["right"]["n"]:,} tokens of {settings["texts"]} passages (split `eval`):

{markdown_table(named, NAMED_COLUMNS)}

**Confidence.** `Explanation.confidence` is the probability that a description names the token's word, or, at the last
token of a turn, its topic. At the end of a turn its calibration error is {errors[0]} and its AUROC {areas[0]};
at tokens of text {errors[1]} and {areas[1]}; at features of an SAE {errors[2]} and {areas[2]}.

**Thresholds of evidence** (at most 5% of descriptions of other or random vectors reach them), in nats per token:

{markdown_table(thresholds, _THRESHOLD_COLUMNS)}

**Limits.** It knows what a model of this size knows, and mostly uses the words of the text itself. The last token of a
prompt tells less of the topic than the topic's own last token does. In plain text a description goes on with words
that the model expects, which need not come. It was trained on English alone.
"""
    at_title = [
        row
        for row in result["tables"]["wordings"]
        if row["adapter"] == TOKEN_ADAPTER and row["token"] == "title's last" and not row["trained"]
    ]
    means = {k: float(np.mean([row[f"recall@{k}"][0] for row in at_title])) for k in (1, 100)}
    asked_about = "titles of Wikipedia's vital articles in five untrained wordings"
    metadata = card_metadata(TOKEN_ADAPTER, contract, settings, asked_about, means)
    return str(ModelCard(f"---\n{metadata}\n---\n\n{text_of}"))
