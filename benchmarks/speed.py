"""Speed against straightforward code on the embedded model; prints JSON.

Each comparison alternates the two sides and gives the median of the ratios, with their lowest and highest. Describing
is measured against Hugging Face's `generate`, training against a plain loop, storing activations for an SAE against
its hidden states (see generation_speed.py, training_speed.py and sae_speed.py beside this file). Quiet the machine
first: the figures are worth what the machine was doing.

    python benchmarks/speed.py [--data FOLDER] [--repeats 5] [--only training]
        [--output benchmarks/results/speed.json]

Training needs topics, `topics/topics.jsonl.gz` in the data folder (see shipped_adapters.py), storing needs passages,
`corpus/passages.jsonl.gz` (see train_sae.py); each is left out without.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import generation_speed
import sae_speed
import torch
import training_speed
from timing import matrix_peak, processor
from training_memory import step_bytes

from interp_toolkit.contract import library_versions
from interp_toolkit.models.dtype import choose_dtype, fast_bfloat16

_PARTS: tuple[str, ...] = ("training", "storing", "describing")
_NEEDED: dict[str, str] = dict(training="topics/topics.jsonl.gz", storing="corpus/passages.jsonl.gz")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--only", choices=_PARTS, help="keep what --output holds of the others")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    default = choose_dtype(None, torch.device("cpu"))
    told: dict[str, Any] = dict(
        machine=dict(
            processor=processor(),
            threads=torch.get_num_threads(),
            fast_bfloat16=fast_bfloat16(torch.device("cpu")),
        ),
        versions=library_versions(),
        vectors=generation_speed.VECTORS,
        new_tokens=generation_speed.NEW_TOKENS,
        batch=training_speed.BATCH,
        seed=0,
        peak_gflops={str(dtype): matrix_peak(dtype) / 1e9 for dtype in dict.fromkeys((torch.float32, default))},
        comparisons={},
    )
    if options.only and options.output and options.output.exists():
        kept = json.loads(options.output.read_text())
        told = kept | {key: x for key, x in told.items() if key != "comparisons"}
    parts = [options.only] if options.only else list(_PARTS)
    for part, file in _NEEDED.items():
        if part in parts and not (options.data / file).exists():
            print(f"no {file} in {options.data}: {part} is not measured", file=sys.stderr)
            parts.remove(part)
    if "training" in parts:
        told["comparisons"] |= training_speed.measure(options.data, options.repeats)
        told["training_growth"] = training_speed.growth(options.data)
        told["training_step_bytes"] = {
            "plain": step_bytes("plain", options.data),
            "ours": step_bytes("ours", options.data),
            "ours, gradient checkpointing": step_bytes("ours", options.data, checkpointing=True),
        }
    if "storing" in parts:
        told["comparisons"] |= sae_speed.measure(options.data, options.repeats)
    if "describing" in parts:
        told["comparisons"] |= generation_speed.measure(options.repeats)
    text = json.dumps(told, indent=2)
    print(text)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
