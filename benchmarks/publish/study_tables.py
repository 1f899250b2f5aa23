"""Tables of studies that stand apart from the six claims: wrong labels, work beyond one process, and the server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from benchmarks.arguments import RESULTS
from benchmarks.topics.label_noise import LABELS
from interp_toolkit.results import Row, interval_text, markdown_table, percent_text, read_result

# What decides whether descriptions beat labels: a coin gives a half of the first, and next to nothing of the second.
MEASURES = {"nearer": "nearness", "recall@100": "recall@100"}
_NAMES = {"scalar_affine": "scalar affine", "full_rank": "full matrix"}


def label_noise_frame() -> pd.DataFrame:
    """One row for each adapter, share of wrong labels and kind of text: how right it is, with its interval."""
    rows = []
    for row in read_result(RESULTS / "label_noise.json")["tables"]["label_noise"]:
        for name, measure in MEASURES.items():
            value, low, high = row[name]
            text = f"{_NAMES[row['adapter']]}, {row['vectors']}" if row["says"] != LABELS else LABELS
            interval = dict(value=value, low=low, high=high, n=row["n"])
            rows.append(
                dict(share=row["share"], adapter=_NAMES[row["adapter"]], text=text, measure=measure, **interval)
            )
    return pd.DataFrame(rows)


def label_noise() -> str:
    """The table, and from which share on descriptions beat their labels."""
    result = read_result(RESULTS / "label_noise.json")
    rows: dict[tuple[str, float], dict[str, Any]] = {}
    for row in result["tables"]["label_noise"]:
        group = rows.setdefault(
            (row["adapter"], row["share"]), dict(adapter=_NAMES[row["adapter"]], share=row["share"])
        )
        kind = "labels" if row["says"] == LABELS else row["vectors"]
        group |= {f"{kind} {name}": row[name] for name in MEASURES}
        group |= {f"less {name}": value for name, value in row.get("less_labels", {}).items()}
        if "nearer_than_label" in row:
            group["sides"] = row["nearer_than_label"]
    columns: dict[str, str | Callable[[Row], str]] = {"adapter": "{adapter}", "wrong labels": "{share:.0%}"}
    for name, short in MEASURES.items():
        columns[f"its labels, {short}"] = _cell(f"labels {name}", lambda value: f"{value[0]:.1%}")
        columns[f"its descriptions of the same vectors, {short}"] = _cell(f"training {name}", percent_text)
        columns[f"difference, {short}"] = _cell(f"less {name}", _points)
    columns["nearer to the truth than to its wrong label"] = lambda row: (
        percent_text(row["sides"]) if "sides" in row else ""
    )
    settings, table = result["settings"], list(rows.values())
    verdicts = [_verdict(adapter, table) for adapter in dict.fromkeys(row["adapter"] for row in table)]
    return (
        f"{markdown_table(table, columns)}\n\n{' '.join(verdicts)}\n\n"
        f"{settings['train_titles']:,} training titles of which a share has another's title for its label, n = "
        f"{settings['n']:,} of them and as many held-out titles, seed {settings['seed']}; one greedy description per "
        f"vector. *Nearness*: the text's embedding is nearer to the true title's than to another vector's (a coin "
        f"gives 50%); *recall@100*: among {settings['index']:,} titles by {settings['embedder']}. "
        f"Differences on the same vectors, in points; 95% bootstrap intervals. "
        f"`python -m benchmarks.topics label_noise` measures it."
    )


def _verdict(adapter: str, table: list[dict[str, Any]]) -> str:
    """One sentence: at which shares an adapter's descriptions are more right than its labels, by each measure."""
    rows = [row for row in table if row["adapter"] == adapter]
    answers = []
    for name, short in MEASURES.items():
        shares = [f"{row['share']:.0%}" for row in rows if row[f"less {name}"][1] > 0]
        answers.append(f"by {short} at {' and '.join(shares) or 'no share'}")
    return f"The {adapter} beats the labels that it was trained on {', '.join(answers)} of wrong labels."


def _cell(key: str, text: Callable[[Any], str]) -> Callable[[Row], str]:
    """What a row holds, as text; empty where it holds none."""
    return lambda row: text(row[key]) if key in row else ""


def _points(difference: Row) -> str:
    value, low, high = (100 * float(x) for x in difference)
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"


def scale() -> str:
    """Work beyond one process."""
    tables = read_result(RESULTS / "scale.json")["tables"]
    timed = [row for name in ("bulk", "processes", "training", "vllm") for row in tables.get(name, [])]
    columns = {
        "what": "{what}",
        "seconds, one over the other": lambda row: interval_text((row["ratio"], row["lowest"], row["highest"]), ".2f"),
        "target": lambda row: row.get("target", ""),
        "repeats": "{repeats}",
    }
    memory = {"what": "{what}", "most memory, MB": "{megabytes:,.0f}", "vectors per second": "{per_second:,.0f}"}
    return (
        f"{markdown_table(timed, columns)}\n\n{markdown_table(tables['memory'], memory)}\n\n"
        f"Median ratio with its lowest and highest, on {timed[0]['machine']}; the embedded model. "
        f"`python -m benchmarks.scale` measures it."
    )


def serving() -> str:
    """What a server gives many clients, and what it survives."""
    result = read_result(RESULTS / "serve.json")
    tables = result["tables"]
    columns = {
        "requests": "{kind}",
        "clients": "{clients}",
        "requests per second": "{per_second:.2f}",
        "times one client": "{against_one_client:.1f}",
        "seconds of half, 95%, 99%": "{p50:.1f}, {p95:.1f}, {p99:.1f}",
        "lost": "{lost}",
        "other than alone": "{other}",
    }
    first = {row["until"]: row for row in tables["first"]}
    text = (
        f"{markdown_table(tables['load'], columns)}\n\n"
        f"In float32; *one token* of a text each (n = {tables['load'][0]['n']}), or a mix of single tokens, sentences "
        f"and paragraphs (n = {tables['load'][-1]['n']}, seed {result['settings']['seed']}). Answers are compared with "
        f"those of `self_explain`. In the default dtype the first descriptions of a text of 30 tokens come after "
        f"{first['first']['median']:.1f} seconds (at most {first['first']['longest']:.1f}), all of them after "
        f"{first['all']['median']:.1f} (n = {first['all']['n']} texts)."
    )
    if "faults" in tables:
        kinds = [f"{row['n']:,} {row['kind']}" for row in tables["faults"][:-1]]
        unharmed = all(row["answers_after"] for row in tables["faults"])
        text += f" It answers {'as before' if unharmed else 'no more'} after each of these: {'; '.join(kinds)}."
    if "soak" in tables:
        begin, end = tables["soak"][0], tables["soak"][-1]
        text += (
            f" In {end['minutes']:.0f} minutes of the mix by eight clients ({end['requests']:,} requests, "
            f"{end['lost']} lost) its memory goes from {begin['memory_mb']:,.0f} to {end['memory_mb']:,.0f} MB."
        )
    return f"{text} On {tables['load'][0]['machine']}; `python -m benchmarks.serve` measures it."
