"""Tables of speed, from benchmarks/results/speed.json: ratios, and what a person waits for, by kind of machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.arguments import RESULTS
from interp_toolkit.results import Row, markdown_table, read_result


def speed() -> str:
    """Ratios on the kind of machine on which most was measured, and how they were measured."""
    result = _result()
    settings, (rows, *_) = result["settings"], _by_machine("comparisons")
    lines = [
        f"{_ratios(rows)}\n",
        f"Training (pairs per second, batches of {settings['batch']}) against a plain loop over Hugging Face's model: "
        f"the whole prompt for each example, logits at every position. Storing activations (tokens per second) against "
        f"its hidden states of every layer. Describing (descriptions per second, {settings['vectors']} vectors, "
        f"{settings['new_tokens']} new tokens) against its `generate`. Median ratio of alternating runs in one "
        f"process, on {rows[0]['machine']}, at equal dtype, but where a row names the default dtype or the published "
        f"trainer: there the other side is in float32, the latter with gradient checkpointing. "
        f"`python -m benchmarks.speed` measures it anew.",
    ]
    for row in rows:
        for steps, loss in row.get("validation_loss_after", {}).items():
            sides = f"ours {loss['ours']:.3f}, plain loop {loss['plain']:.3f}"
            lines.append(f"Loss after {steps} steps, {row['comparison']}: {sides}.")
    memory = {row["side"]: row["bytes"] for row in result["tables"].get("training_memory", [])}
    if memory and all(memory.values()):
        sides = ", ".join(f"{side} {size / 1e9:.2f} GB" for side, size in memory.items())
        lines.append(f"Memory of a training step beside the model, at its peak: {sides}.")
    return "\n".join(lines)


def other_speeds() -> str:
    """The same ratios on other kinds of machines."""
    _, *others = _by_machine("comparisons")
    return "\n\n".join(f"On {rows[0]['machine']}:\n\n{_ratios(rows)}" for rows in others)


def waiting() -> str:
    """Seconds of commands, of the import, of loading, of a description and of a grid."""
    columns = {
        "what": "{what}",
        "threads": "{threads}",
        "seconds": "{seconds:.2f}",
        "range": "{lowest:.2f} to {highest:.2f}",
        "of processors": lambda row: _if_measured("processor_seconds", "{processor_seconds:.1f}", row),
        "target": lambda row: _if_measured("target", "{target}", row),
        "per second": lambda row: _if_measured("per_second", "{per_second:.1f}", row),
        "n": "{n}",
    }
    tables = (f"On {rows[0]['machine']}:\n\n{markdown_table(rows, columns)}" for rows in _by_machine("waiting"))
    return "\n\n".join(tables) + (
        "\n\nMedian seconds by the clock, and those of all processors together, in new processes; the embedded model "
        "in its default dtype, which is float32 where bfloat16 is not fast. The grid is 60 tokens at four layers, one "
        "description and its evidence each. `python -m benchmarks.speed --only waiting` measures it."
    )


def busy() -> str:
    """Seconds of a description alone and beside a busy process."""
    columns = {
        "threads": "{threads}",
        "`OMP_WAIT_POLICY`": "{waiting}",
        "alone": "{alone:.2f}",
        "beside a busy process": "{beside:.2f}",
        "times as long": "{ratio:.2f}",
        "n": "{n}",
    }
    rows, *_ = _by_machine("busy")
    return (
        f"{markdown_table(rows, columns)}\n\nMedian seconds of a warm `self_explain` of one prompt on "
        f"{rows[0]['machine']}. `python -m benchmarks.speed --only busy` measures it."
    )


def _result() -> dict[str, Any]:
    return read_result(RESULTS / "speed.json")


def _by_machine(table: str) -> list[list[Row]]:
    """The rows of a table, by kind of machine: that of most rows first."""
    by_machine: dict[str, list[Row]] = {}
    for row in _result()["tables"][table]:
        by_machine.setdefault(row["machine"], []).append(row)
    return sorted(by_machine.values(), key=len, reverse=True)


def _ratios(rows: Sequence[Row]) -> str:
    columns = {
        "what": "{comparison}",
        "times as fast": lambda row: _if_measured("ratio", "{ratio:.2f}", row) or f"not measured: {row['note']}",
        "range": lambda row: _if_measured("lowest", "{lowest:.2f} to {highest:.2f}", row),
        "target": lambda row: _if_measured("target", "{target}", row),
        "per second": lambda row: _if_measured("rate", "{rate:.1f}", row),
        "share of peak": lambda row: _if_measured("share_of_peak", "{share_of_peak:.0%}", row),
    }
    return markdown_table(rows, columns)


def _if_measured(key: str, cell: str, row: Row) -> str:
    return "" if row.get(key) is None else cell.format(**row)
