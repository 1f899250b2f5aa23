"""Tables of answers to questions, and of what differences between models tell, from benchmarks/results."""

from __future__ import annotations

from typing import Any

from benchmarks.arguments import RESULTS
from interp_toolkit.results import interval_text, markdown_table, percent_text, read_result

_KINDS = {
    "adapter": "the adapter",
    "linear probe": "linear probe",
    "text shown": "text shown",
    "untrained direction": "untrained direction",
    "shuffled vectors": "shuffled vectors",
    "adapter without questions": "before training",
}
_EIGHT = "eight tokens, each in its slot"
_READ = {"last token": "the last token", "mean of eight": "mean of eight tokens", "eight tokens": _EIGHT}
_ONE = ("last token", "mean of eight")
_LESS = {
    "adapter less linear probe": "less the probe",
    "adapter less text shown": "less the text",
    "adapter less shuffled vectors": "less shuffled vectors",
}


def questions() -> str:
    """AUROC of answers by family of questions, beside controls, and recall of descriptions before and after."""
    path = RESULTS / "questions" / "questions.json"
    if not path.exists():
        return "Not measured yet."
    result = read_result(path)
    settings = result["settings"]
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for row in result["tables"]["families"]:
        key = (row["family"], row["wording"])
        rows.setdefault(key, dict(family=row["family"], wording=row["wording"], n=row["n"]))[row["by"]] = row
    columns: dict[str, Any] = {"questions": "{family}", "": "{wording}", "of them": "{n}"}
    columns |= {name: _cell(by) for by, name in _KINDS.items()}
    less = {"questions": "{family}", "": "{wording}"} | {name: _cell(by) for by, name in _LESS.items()}
    recall = {
        "adapter": lambda row: {"start": "before training", "answers": "that answers"}[row["adapter"]],
        "recall@1": lambda row: percent_text(row["recall@1"]),
        "recall@100": lambda row: percent_text(row["recall@100"]),
    }
    return (
        f"{markdown_table(list(rows.values()), columns)}\n\n"
        f"Area under the ROC curve, mean over the questions of a family with its 95% interval over questions; "
        f"{settings['n']:,} answers to texts that are no part of training (seed {settings['seed']}). The differences "
        f"are paired:\n\n{markdown_table(list(rows.values()), less)}\n\n"
        f"The adapter goes on describing ({settings['described']} held-out titles among {settings['index']:,}, one "
        f"greedy description):\n\n{markdown_table(result['tables']['describing'], recall)}"
    )


def single_questions() -> str:
    """AUROC of the answers to each question in a wording of training, or of each that was never trained on."""
    path = RESULTS / "questions" / "questions.json"
    if not path.exists():
        return "Not measured yet."
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for row in read_result(path)["tables"]["answers"]:
        if row["wording"] != "unseen wording":
            key = (row["family"], row["question"])
            first = dict(question=f"{row['family']}: {row['question']}", wording=row["wording"], n=row["n"])
            rows.setdefault(key, first)[row["by"]] = row
    columns: dict[str, Any] = {"question": "{question}", "": "{wording}", "n": "{n}"}
    columns |= {name: _cell(by) for by, name in _KINDS.items() if by != "shuffled vectors"}
    return markdown_table(list(rows.values()), columns)


def spans() -> str:
    """AUROC of answers that rest on the last token, on the mean of eight, and on all eight, by family of questions."""
    path = RESULTS / "questions" / "spans.json"
    if not path.exists():
        return "Not measured yet."
    result = read_result(path)
    settings = result["settings"]
    rows: dict[str, dict[str, Any]] = {}
    for row in result["tables"]["families"]:
        rows.setdefault(row["family"], dict(family=row["family"], n=row["n"]))[f"{row['by']}: {row['read']}"] = row
    columns: dict[str, Any] = {"questions": "{family}", "of them": "{n}"}
    columns |= {name: _cell(f"adapter: {read}") for name, read in _READ.items()}
    less = {"questions": "{family}"} | {
        f"less {name}": _cell(f"adapter: {_EIGHT}, less {_READ[name]}") for name in _ONE
    }
    columns |= {f"probe of {name}": _cell(f"linear probe: {_READ[name]}") for name in _ONE}
    return (
        f"{markdown_table(list(rows.values()), columns)}\n\n"
        f"Area under the ROC curve, mean over questions with its 95% interval over questions; {settings['n']:,} "
        f"answers to held-out texts, {settings['trained_on']:,} to train on (seed {settings['seed']}). What eight "
        f"tokens in eight slots add, question by question:\n\n{markdown_table(list(rows.values()), less)}"
    )


def difference() -> str:
    """How often the topic of a fine-tune is named among the first, by kind of reading, and how placebos look."""
    path = RESULTS / "difference" / "difference.json"
    if not path.exists():
        return "Not measured yet."
    result = read_result(path)
    rows: dict[str, dict[str, Any]] = {}
    for row in result["tables"]["named"]:
        rows.setdefault(row["by"], dict(by=row["by"]))[f"first {row['first']}"] = row
    counts = sorted({row["first"] for row in result["tables"]["named"]})
    columns: dict[str, Any] = {"by": "{by}"}
    columns |= {f"first {k}": lambda row, k=k: percent_text(row[f"first {k}"]) for k in counts}
    detected = {
        "fine-tunes": "{kind}",
        "": lambda row: row["measure"].replace("_", " "),
        "value (95% interval)": interval_text,
        "n": "{n}",
    }
    examples = {
        "fine-tune": "{organism}",
        "what": "{what}",
        "description": "{description}",
        "evidence": "{evidence:.2f}",
    }
    first = {row["organism"]: row for row in reversed(result["examples"])}
    count = result["tables"]["named"][0]["n"]
    return (
        f"{markdown_table(list(rows.values()), columns)}\n\n"
        f"Share of {count} fine-tunes whose topic is named, with Wilson's 95% interval; *nearest of all* asks instead "
        f"whether the right one of the {count} topics is the nearest to the descriptions by their embeddings (chance "
        f"{1 / count:.0%}). {len(result['settings']['prompts'])} prompts, two placebos as controls of each, seed "
        f"{result['settings']['seed']}.\n\n{markdown_table(result['tables']['detected'], detected)}\n\n"
        f"The description with the most evidence of each:\n\n"
        f"{markdown_table([first[name] for name in sorted(first)], examples)}"
    )


def _cell(by: str) -> Any:
    return lambda row: interval_text(row[by], ".2f") if by in row else "-"
