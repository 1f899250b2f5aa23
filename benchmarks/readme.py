"""Write the README's outputs and tables from benchmarks/results; a test fails where they are stale.

python benchmarks/readme.py
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def demo() -> str:
    return "```\n" + (RESULTS / "demo.txt").read_text().rstrip() + "\n```"


def shipped() -> str:
    told = json.loads((RESULTS / "shipped_adapters.json").read_text())
    lines = [
        "| adapter | parameters | loss | other vectors | no vector | recall@1 | recall@10 | recall@100 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in told["adapters"].items():
        recalls = [_percent(row["retrieval"][f"recall@{k}"]) for k in (1, 10, 100)]
        losses = [f"{row[key]:.2f}" for key in ("loss", "shuffled_loss", "null_loss")]
        lines.append(f"| `{name}` | {row['parameters']:,} | {' | '.join(losses + recalls)} |")
    ceiling = [_percent(told["title_to_itself"][f"recall@{k}"]) for k in (1, 10, 100)]
    lines.append(f"| the title itself | | | | | {' | '.join(ceiling)} |")
    lines.append("")
    lines.append(
        f"Held-out titles (split `{told['split']}`, n = {told['n']}, seed {told['seed']}); loss in nats a token of the "
        f"right title given its vector, another title's vector, and none; {told['protocol']}, looked up among "
        f"{told['index']:,} titles by {told['embedder']}; 95% bootstrap intervals. The first is the default."
    )
    return "\n".join(lines)


def speed() -> str:
    told = json.loads((RESULTS / "speed.json").read_text())
    lines = [
        "| what | times as fast | range | target | a second | share of peak |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in told["comparisons"].items():
        if row["ratio"] is None:
            lines.append(f"| {name} | not measured: {row['note']} | | {row['target']} | | |")
            continue
        rate = f"{row['rate']:.1f}" if "rate" in row else ""
        share = f"{100 * row['share_of_peak']:.0f}%" if "share_of_peak" in row else ""
        span = f"{row['lowest']:.2f} to {row['highest']:.2f}"
        lines.append(f"| {name} | {row['ratio']:.2f} | {span} | {row.get('target', '')} | {rate} | {share} |")
    machine, memory = told["machine"], told["training_peak_memory_mb"]
    lines.append("")
    lines.append(
        f"Training (pairs a second, batches of {told['batch']}) against a plain loop over Hugging Face's model: the "
        f"whole prompt for each example, logits at every position; peak memory {memory['ours'] / 1024:.1f} GB against "
        f"{memory['plain'] / 1024:.1f} GB. Describing (descriptions a second, {told['vectors']} vectors, "
        f"{told['new_tokens']} new tokens) against Hugging Face's `generate`. Median ratio of alternating runs in one "
        f"process, on {machine['processor']} with {machine['threads']} threads, at equal dtype; "
        f"`python benchmarks/speed.py` measures it anew."
    )
    return "\n".join(lines)


def _percent(told: list[float]) -> str:
    value, low, high = (100 * x for x in told)
    return f"{value:.1f}% ({low:.1f} to {high:.1f})"


BLOCKS: dict[str, Callable[[], str]] = {"demo": demo, "shipped": shipped, "speed": speed}


def filled(readme: str) -> str:
    """The README with every block made anew."""
    for name, make in BLOCKS.items():
        begin, end = f"<!-- begin {name}: made by benchmarks/readme.py -->", f"<!-- end {name} -->"
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), flags=re.S)
        text = f"{begin}\n{make()}\n{end}"
        readme, count = pattern.subn(lambda _, text=text: text, readme)
        assert count == 1, f"the README has {count} blocks named {name}"
    return readme


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(filled(path.read_text()))
