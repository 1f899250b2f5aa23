"""Tables of what adapters say of any token, from benchmarks/results/tokens."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import Any

import numpy as np

from benchmarks.arguments import RESULTS
from benchmarks.publish.grouping import grouped
from benchmarks.tokens.depth import AS_IT_IS, BY_PLACE, COMMON
from interp_toolkit.results import interval_text, markdown_table, percent_text, read_result

TOKEN_ADAPTER = "smollm2_any_token"
RECALL_COLUMNS = {
    "token": "{token}",
    "recall@1, trained": "{trained@1}",
    "recall@100, trained": "{trained@100}",
    "recall@1, others": "{others@1}",
    "recall@100, others": "{others@100}",
}
# Which adapter each trained vector's gain is over.
_LESS_THAN = {COMMON: AS_IT_IS, BY_PLACE: COMMON}
NAMED_COLUMNS = {"named": "{what}", "by its description": "{matched}", "by another token's": "{shuffled}"}
# Measures of confidence, and how each is shown.
_MEASURES = {
    "right": percent_text,
    "calibration error": lambda row: interval_text(row, ".2f"),
    "Brier score": lambda row: interval_text(row, ".2f"),
    "AUROC": lambda row: interval_text(row, ".2f"),
    "AUROC, evidence": lambda row: f"{row['value']:.2f}",
    "area under risk-coverage, confidence": lambda row: f"{row['value']:.3f}",
    "area under risk-coverage, evidence": lambda row: f"{row['value']:.3f}",
    "right, greedy": percent_text,
    "right, best of six by confidence": percent_text,
    "best of six by confidence less greedy": percent_text,
    "right, best of six by evidence": percent_text,
}


def recall_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Recall by adapter and token: in the wording of training, and the mean over the five others."""
    rows = []
    for adapter in result["settings"]["digests"]:
        for token in ("title's last", "last"):
            here = [row for row in result["tables"]["wordings"] if (row["adapter"], row["token"]) == (adapter, token)]
            row: dict[str, Any] = dict(adapter=adapter, token=token)
            for k in (1, 100):
                trained, others = ([x[f"recall@{k}"] for x in here if x["trained"] == side] for side in (True, False))
                row[f"trained@{k}"] = percent_text(trained[0])
                row[f"others@{k}"] = f"{100 * float(np.mean([x[0] for x in others])):.1f}%"
            rows.append(row)
    return rows


def named_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How often a token's word, or one near it, is named, by adapter."""
    rows: list[dict[str, Any]] = []
    for row in result["tables"]["tokens"]:
        if row["by"] == "its description":
            rows.append(dict(adapter=row["adapter"], what=row["what"], matched=percent_text(row)))
        elif row["by"] == "another's description":
            rows[-1]["shuffled"] = percent_text(row)
    return rows


def confidence_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The measures of confidence in columns, by kind of vector: tokens at the stack, and directions at their site."""
    rows = []
    for token in ("last", "text", "direction"):
        here = [
            row
            for row in result["tables"]["confidence"]
            if row["token"] == token and row["vectors"] == "matched" and ("+" in row["site"] or token == "direction")
        ]
        rows.append(dict(token=token) | {row["measure"]: row for row in here})
    return rows


def control_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Mean confidence of descriptions that are hardly ever right, and how many are, by kind of token."""
    rows: dict[str, dict[str, Any]] = {}
    for row in result["tables"]["confidence"]:
        if row["vectors"] != "matched":
            control = rows.setdefault(row["vectors"], dict(control=row["vectors"]))
            control.setdefault(row["token"], {})[row["measure"]] = percent_text(row)
    return list(rows.values())


def fact_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How often the answer of a fact is read at its subject, by the adapter for any token and by the logit lens."""
    facts = (row for row in result["tables"]["facts"] if row["adapter"] == TOKEN_ADAPTER)
    return grouped(facts, ["site"], itemgetter("by"))


def tokens() -> str:
    """The block of docs/how-to/any-token.md."""
    result = read_result(RESULTS / "tokens" / "tokens.json")
    settings = result["settings"]
    recalls = markdown_table(recall_rows(result), {"adapter": "`{adapter}`", **RECALL_COLUMNS})
    named = markdown_table(named_rows(result), {"adapter": "`{adapter}`", **NAMED_COLUMNS})
    kinds = {row["token"]: row for row in confidence_rows(result)}
    measures = [
        dict(measure=name) | {token: show(row[name]) if name in row else "" for token, row in kinds.items()}
        for name, show in _MEASURES.items()
    ]
    columns = {
        "": "{measure}",
        "last token of a turn": "{last}",
        "tokens of a text": "{text}",
        "SAE features": "{direction}",
    }
    confidence = markdown_table(measures, columns)
    controls = markdown_table(
        control_rows(result),
        {
            "control": "{control}",
            "last token of a turn: confidence": "{last[confidence]}",
            "right": "{last[right]}",
            "tokens of a text: confidence": "{text[confidence]}",
            "right ": "{text[right]}",
        },
    )
    facts = fact_rows(result)
    counts = facts[0]["description"]
    shown = ("description", "another's description", "logit lens, first 1", "logit lens, first 10")
    fact_columns: dict[str, Any] = {"site": "`{site}`"} | {
        by: lambda row, by=by: percent_text(row[by]) if by in row else "" for by in shown
    }
    return (
        f"Recall of {settings['n']} held-out titles (split `{settings['split']}`, seed {settings['seed']}) among "
        f"{settings['index']:,} by {settings['embedder']}, one greedy description: in *Tell me about …*, and the mean "
        f"over five wordings that no adapter was trained on, read at the title's last token and at the last of the "
        f"prompt.\n\n{recalls}\n\nDescriptions of tokens that end content words, in {settings['texts']} passages of "
        f"plain text (split `eval`): how often they name the token's word, and a content word within ten before or "
        f"after it that is another.\n\n{named}\n\nConfidence of `{TOKEN_ADAPTER}`, on the same titles in the five "
        f"wordings, the same tokens, and features of an SAE at block 10, whose description is right that names a word "
        f"at which the feature is most active; intervals of 95%.\n\n{confidence}\n\nMean confidence "
        f"where hardly any description can be right: of random directions, of vectors in another order of the stream's "
        f"dimensions, as another model's are, and of descriptions of other vectors.\n\n{controls}\n\n"
        f"Facts that the model completes rightly (*Tel Aviv is part of* Israel; n = {counts['n']}, "
        f"{counts['clusters']} relations, by which intervals are clustered), read at the last token of their subject: "
        f"how often one greedy description names the answer, and how often the answer's first token is the logit "
        f"lens's first, or among its first ten.\n\n"
        f"{markdown_table(facts, fact_columns)}\n\n{_depth()}"
    )


def _depth() -> str:
    """What a trained vector for each place is worth."""
    result = read_result(RESULTS / "tokens" / "depth.json")
    settings = result["settings"]
    by_site: dict[str, dict[str, Any]] = {}
    for row in result["tables"]["depth"]:
        this = by_site.setdefault(row["site"], dict(site=row["site"]))
        this[row["adapter"]] = f"{row['loss']:.3f}"
        if other := _LESS_THAN.get(row["adapter"]):
            gain = dict(value=row[f"less than {other}"], low=row[f"low {other}"], high=row[f"high {other}"])
            this[row["adapter"]] = interval_text(gain, ".3f")
    columns = {
        "site": "`{site}`",
        "loss": f"{{{AS_IT_IS}}}",
        f"less with {COMMON}": f"{{{COMMON}}}",
        f"less again with {BY_PLACE}": f"{{{BY_PLACE}}}",
    }
    return (
        f"Whether the adapter should be given the depth: a vector was trained that is added to the soft tokens, all "
        f"else frozen, one for all places or one for each ({settings['steps']} steps of {settings['batch']} titles in "
        f"wordings of training, the learning rate chosen on other titles). Loss of {settings['n']} held-out titles, in "
        f"nats per token, and what the vectors take off it, paired by title.\n\n"
        f"{markdown_table(list(by_site.values()), columns)}"
    )
