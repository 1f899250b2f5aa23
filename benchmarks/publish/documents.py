"""Outputs and tables of the README and of docs/, from benchmarks/results."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.arguments import RESULTS
from benchmarks.publish.claims import CLAIMS, transfer_frame
from benchmarks.publish.grouping import grouped
from benchmarks.publish.question_tables import difference, questions, single_questions, spans
from benchmarks.publish.speed_tables import busy, other_speeds, speed, waiting
from benchmarks.publish.study_tables import label_noise, scale, serving
from benchmarks.publish.token_tables import tokens
from benchmarks.trust.table import trust_table
from interp_toolkit.results import Row, interval_text, markdown_table, percent_text, read_result

ROOT = Path(__file__).parent.parent.parent
_MEASURED = dict(sae="features", topics="titles")


def demo() -> str:
    return "```\n" + (RESULTS / "demo.txt").read_text().rstrip() + "\n```"


def shipped() -> str:
    result = read_result(RESULTS / "shipped_adapters.json")
    rows, settings, ceiling = result["adapters"], result["settings"], result["title_to_itself"]
    columns = {
        "adapter": "`{name}`",
        "parameters": "{parameters:,}",
        "loss": "{loss:.2f}",
        "other vectors": "{shuffled_loss:.2f}",
        "no vector": "{null_loss:.2f}",
        **{f"recall@{k}": _percents(f"recall@{k}") for k in (1, 10, 100)},
    }
    recalls = " | ".join(percent_text(ceiling[f"recall@{k}"]) for k in (1, 10, 100))
    counts = " and ".join(f"{n:,}" for n in sorted({row["n"] for row in rows.values()}))
    scored = max(row["scored"] for row in rows.values())
    return (
        markdown_table([dict(row["retrieval"], **row, name=name) for name, row in rows.items()], columns)
        + f"\n| the title itself | | | | | {recalls} |\n\n"
        f"Held-out titles (split `{settings['split']}`, n = {counts}; losses on {scored:,} of them, seed "
        f"{settings['seed']}); loss in nats per token of the right title given its vector, another title's vector, and "
        f"none; {settings['protocol']}, looked up among {settings['index']:,} titles by {settings['embedder']}; 95% "
        f"bootstrap intervals."
    )


def rewordings() -> str:
    result = read_result(RESULTS / "rewordings.json")
    rows: dict[Any, dict[str, Any]] = {}
    for row in result["tables"]["rewordings"]:
        by_wording = rows.setdefault((row["adapter"], row["mean"]), dict(adapter=row["adapter"], mean=row["mean"]))
        by_wording[f"*{row['wording'].replace('{title}', '…')}*"] = row["recall@1"]
    wordings = [name for name in next(iter(rows.values())) if name.startswith("*")]
    columns = {"adapter": "`{adapter}`", "mean": "{mean}", **{name: _percents(name) for name in wordings}}
    return (
        f"{markdown_table(rows.values(), columns)}\n\n"
        f"Recall@1 of {result['settings']['n']} held-out titles (seed {result['settings']['seed']}) asked about in "
        f"three wordings, the first that of training; less the mean that the adapter carries (contract), or that of "
        f"the wording's own vectors (own); one greedy description per vector, 95% bootstrap intervals."
    )


def trust() -> str:
    columns = {
        "NAME": "`{measurement}`",
        "what": "{what}",
        "value": "{value:.3f}",
        "95% interval": "{low:.3f} to {high:.3f}",
        "n": "{n:,}",
    }
    return markdown_table(trust_table(RESULTS / "trust"), columns)


def sae_layers() -> str:
    metrics = ("vector_gain", "best_length", "peak_tokens", "explained_variance", "loss_spliced", "loss_recovered")
    records = pd.read_csv(RESULTS / "sae_layers.csv").to_dict("records")
    rows = grouped(records, ["site"], itemgetter("metric"))
    return markdown_table(rows, {"site": "`{site}`", **{name: _intervals(name) for name in metrics}})


def sae_quality() -> str:
    columns = {"": "{metric}", "value (95% interval)": interval_text, "n": "{n:,}"}
    return markdown_table(pd.read_csv(ROOT / "tutorials" / "sae" / "quality.csv"), columns)


def sae_scores() -> str:
    return _label_scores("scores.json", "original label, reworded")


def sae_llm_labels() -> str:
    """Scores of the study with a language model's labels, and how far adapters are from labels of either kind."""
    result = read_result(RESULTS / "sae_labels" / "llm_labels.json")
    scored = [*result["tables"]["generation"], *result["tables"]["detection"]]
    differences = (
        row
        for row in scored
        if row["what"] != "mean" and row["source"].startswith("trained") and row["protocol"] == "best label"
    )
    rows = grouped(differences, ["source", "what"], itemgetter("score"))
    columns = {
        "adapter": "{source}",
        "": "{what}",
        "any token": _intervals("rate"),
        "strict": _intervals("strict_rate"),
        "detection": _intervals("auroc"),
    }
    shown = grouped(result["tables"]["labels"], ["feature"], itemgetter("source"))
    examples = {"feature": "{feature}"} | {
        name: (lambda row, name=name: _short_label(row[name]["label"]) if name in row else "")
        for name in ("distinctive words", "LLM label", "trained, scalar_affine", "trained, full_rank")
    }
    settings = result["settings"]
    return (
        f"{_label_scores('llm_labels.json', 'LLM label')}\n\n"
        f"Best label, differences on the same features (95% bootstrap intervals):\n\n"
        f"{markdown_table(rows, columns)}\n\n"
        f"{settings['train']:,} features trained on, {settings['sizes']['dev']} that chose weights and length; of all "
        f"live features {settings['without_label']} got no label. The first label of eight of those measured:\n\n"
        f"{markdown_table(shown[:8], examples)}"
    )


def _short_label(label: str) -> str:
    return " ".join(label.split())[:80].replace("|", "\\|")


def _label_scores(file: str, counted: str) -> str:
    """Scores of all sources of labels in a results file; ``counted`` is one of them, which says how many there are."""
    tables = read_result(RESULTS / "sae_labels" / file)["tables"]
    rows: dict[str, dict[Any, Any]] = {}
    for row in [*tables["generation"], *tables["detection"]]:
        by_protocol = rows.setdefault(row["source"], dict(source=row["source"]))
        if row["what"] == "mean":
            by_protocol[row["score"], row["protocol"]] = row
    best = "best label"
    columns = {
        "labels": lambda row: row["source"],
        "any token, best label": _intervals(("rate", best)),
        "strict, best label": _intervals(("strict_rate", best)),
        "strict, best label chosen by other texts": _intervals(("strict_rate", f"{best}, chosen by other texts")),
        "detection, best label": _intervals(("auroc", best)),
        "detection, mean of labels": _intervals(("auroc", "mean of labels")),
    }
    row = rows[counted]["rate", best]
    return (
        f"{markdown_table(rows.values(), columns)}\n\n"
        f"Share of texts on which the feature is active, and area under the curve of detection (chance 0.5 for one "
        f"label, more for the best of six); n = {row['n']} features, {row['tries']} labels per feature, "
        f"seed {row['seed']}."
    )


def sae_transfer() -> str:
    rows: dict[Any, dict[Any, Any]] = {}
    for row in transfer_frame().to_dict("records"):
        source = _MEASURED.get(row["trained_on"], row["trained_on"])
        by_side = rows.setdefault((row["kind"], source), dict(kind=row["kind"], source=source))
        by_side[row["measured_on"], row["rows"], row["measure"]] = row

    def cell(row: Row, *side: str) -> str:
        cells: Mapping[Any, Any] = row
        if (*side, "loss") not in cells:
            return ""
        return f"{interval_text(cells[*side, 'loss'])}; {cells[*side, other]['value']:+.2f}"

    other = "more with another's vector"
    columns: dict[str, Callable[[Row], str]] = {
        "adapter": lambda row: row["kind"],
        "trained on": lambda row: row["source"],
    }
    for measured in _MEASURED:
        for side, name in (("held", "held out"), ("train", "seen")):
            columns[f"{_MEASURED[measured]}, {name}"] = lambda row, side=(measured, side): cell(row, *side)
    counts = sorted(set(transfer_frame()["n"]))
    return (
        f"{markdown_table(rows.values(), columns)}\n\n"
        f"Nats per token that a label costs given its own vector, with its 95% interval, and how much more it costs "
        f"given another's; n = {' or '.join(map(str, counts))} for each figure."
    )


def dtypes() -> str:
    result = read_result(RESULTS / "dtypes.json")
    columns = {
        "adapter": "`{adapter}`",
        "evidence, bfloat16 less float32: mean, SD, greatest": (
            "{mean_difference:.3f}, {sd_difference:.3f}, {max_difference:.3f}"
        ),
        "within 0.02": "{within_002:.0%}",
        "verdicts that differ": "{verdicts_that_differ:.1%}",
        "threshold, float32 (95% interval)": "{threshold:.2f} ({low:.2f} to {high:.2f})",
        "threshold, bfloat16": "{threshold_bfloat16:.2f}",
    }
    settings = result["settings"]
    return (
        f"{markdown_table(result['tables']['dtypes'], columns)}\n\n"
        f"Nats per token; the same greedy descriptions of {settings['n']} held-out titles, thresholds from as many "
        f"training titles, seed {settings['seed']}, on a processor {'with' if settings['amx'] else 'without'} AMX. "
        f"Made by `python -m benchmarks.trust dtypes`."
    )


def verdicts() -> str:
    rows = []
    for notebook, make in CLAIMS.items():
        claim = make()
        checks = "<br>".join(
            f"{check.what}: {check.value:.3g} ({check.low:.3g} to {check.high:.3g}, n {check.n:,}), "
            f"{'' if check.holds else 'not '}{check.needs}"
            for check in claim.checks
        )
        verdict = f"[{claim.verdict}](benchmarks/{notebook}.ipynb)"
        rows.append(dict(says=claim.says, paper=claim.paper, measured=checks or claim.differs, verdict=verdict))
    columns = {"claim": "{says}", "the paper's figure": "{paper}", "measured here": "{measured}"}
    return markdown_table(rows, {**columns, "verdict": "{verdict}"})


def _percents(key: str) -> Callable[[Row], str]:
    return lambda row: percent_text(row[key])


def _intervals(key: Any) -> Callable[[Row], str]:
    """The interval of a row's entry; empty where it has none."""
    return lambda row: interval_text(row[key]) if key in row else ""


# file: name of a block in it, and what makes it
BLOCKS: dict[str, dict[str, Callable[[], str]]] = {
    "docs/how-to/any-token.md": {"tokens": tokens},
    "docs/how-to/compare-models.md": {"difference": difference},
    "docs/how-to/explore.md": {"serving": serving},
    "docs/how-to/questions.md": {"questions": questions, "single questions": single_questions, "spans": spans},
    "docs/how-to/speed.md": {"waiting": waiting, "busy": busy, "other speeds": other_speeds, "scale": scale},
    "README.md": {"demo": demo, "shipped": shipped, "rewordings": rewordings, "speed": speed},
    "docs/evaluation.md": {"trust": trust},
    "docs/claims.md": {"verdicts": verdicts, "label noise": label_noise},
    "docs/how-to/reading-evidence.md": {"dtypes": dtypes},
    "docs/sae.md": {
        "sae layers": sae_layers,
        "sae quality": sae_quality,
        "sae scores": sae_scores,
        "llm labels": sae_llm_labels,
        "sae transfer": sae_transfer,
    },
}


def filled(file: str) -> str:
    """A file of `BLOCKS` with every block made anew."""
    text = (ROOT / file).read_text()
    for name, make in BLOCKS[file].items():
        begin, end = f"<!-- begin {name}: made by python -m benchmarks.publish -->", f"<!-- end {name} -->"
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), flags=re.S)
        block = f"{begin}\n{make()}\n{end}"
        text, count = pattern.subn(lambda _, block=block: block, text)
        assert count == 1, f"{file} has {count} blocks named {name}"
    return text
