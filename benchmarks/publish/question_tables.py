"""Tables of answers to questions, and of what differences between models tell, from benchmarks/results."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Any

from benchmarks.arguments import RESULTS
from benchmarks.publish.grouping import grouped
from interp_toolkit.results import Row, interval_text, markdown_table, percent_text, read_result

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
    result = read_result(RESULTS / "questions" / "questions.json")
    settings = result["settings"]
    rows = grouped(result["tables"]["families"], ["family", "wording"], itemgetter("by"))
    columns: dict[str, Any] = {"questions": "{family}", "": "{wording}", "of them": "{adapter[n]}"}
    columns |= {name: _area(by) for by, name in _KINDS.items()}
    less = {"questions": "{family}", "": "{wording}"} | {name: _difference(by) for by, name in _LESS.items()}
    recall = {
        "adapter": lambda row: {"start": "before training", "answers": "that answers"}[row["adapter"]],
        "recall@1": lambda row: percent_text(row["recall@1"]),
        "recall@100": lambda row: percent_text(row["recall@100"]),
    }
    return (
        f"{markdown_table(rows, columns)}\n\n"
        f"Area under the ROC curve, mean over the questions of a family with its 95% interval over questions; "
        f"{settings['n']:,} answers to texts that are no part of training (seed {settings['seed']}). The differences "
        f"are paired:\n\n{markdown_table(rows, less)}\n\n"
        f"The adapter goes on describing ({settings['described']} held-out titles among {settings['index']:,}, one "
        f"greedy description):\n\n{markdown_table(result['tables']['describing'], recall)}"
    )


def single_questions() -> str:
    """AUROC of the answers to each question in a wording of training, or of each that was never trained on."""
    answers = read_result(RESULTS / "questions" / "questions.json")["tables"]["answers"]
    once = (row for row in answers if row["wording"] != "unseen wording")
    rows = grouped(once, ["family", "question", "wording"], itemgetter("by"))
    columns: dict[str, Any] = {
        "question": "{family}: {question}",
        "": "{wording}",
        "n": "{adapter[n]}",
    }
    columns |= {name: _area(by) for by, name in _KINDS.items() if by != "shuffled vectors"}
    return markdown_table(rows, columns)


def spans() -> str:
    """AUROC of answers that rest on the last token, on the mean of eight, and on all eight, by family of questions."""
    result = read_result(RESULTS / "questions" / "spans.json")
    settings = result["settings"]
    rows = grouped(result["tables"]["families"], ["family"], itemgetter("by", "read"))
    columns: dict[str, Any] = {"questions": "{family}", "of them": lambda row: str(row["adapter", _EIGHT]["n"])}
    columns |= {name: _area(("adapter", read)) for name, read in _READ.items()}
    columns |= {f"shuffled, {name}": _area(("shuffled vectors", read)) for name, read in _READ.items()}
    columns |= {f"probe of {name}": _area(("linear probe", _READ[name])) for name in _ONE}
    less = {"questions": "{family}"} | {
        f"less {name}": _difference(("adapter", f"{_EIGHT}, less {_READ[name]}")) for name in _ONE
    }
    return (
        f"{markdown_table(rows, columns)}\n\n"
        f"Area under the ROC curve, mean over questions with its 95% interval over questions; {settings['n']:,} "
        f"answers to held-out texts, {settings['trained_on']:,} to train on (seed {settings['seed']}). What eight "
        f"tokens in eight slots add, question by question:\n\n{markdown_table(rows, less)}"
    )


def difference() -> str:
    """How often the topic of a fine-tune is named among the first, by kind of reading, and how placebos look."""
    result = read_result(RESULTS / "difference" / "difference.json")
    rows = grouped(result["tables"]["named"], ["by"], lambda row: f"first {row['first']}")
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
        f"{markdown_table(rows, columns)}\n\n"
        f"Share of {count} fine-tunes whose topic is named, with Wilson's 95% interval; *nearest of all* asks instead "
        f"whether the right one of the {count} topics is the nearest to the descriptions by their embeddings (chance "
        f"{1 / count:.0%}). {len(result['settings']['prompts'])} prompts, two placebos as controls of each, seed "
        f"{result['settings']['seed']}.\n\n{markdown_table(result['tables']['detected'], detected)}\n\n"
        f"The description with the most evidence of each:\n\n"
        f"{markdown_table([first[name] for name in sorted(first)], examples)}"
    )


def _area(name: Any) -> Callable[[Row], str]:
    """An area under the ROC curve; a wide interval of few questions ends where areas do."""
    return _cell(name, 0.0)


def _difference(name: Any) -> Callable[[Row], str]:
    """A difference of areas."""
    return _cell(name, -1.0)


def _cell(name: Any, least: float) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        if name not in row:
            return "-"
        value = dict(row[name])
        if value.get("low") is not None:
            value |= dict(low=max(least, value["low"]), high=min(1.0, value["high"]))
        return interval_text(value, ".2f")

    return text
