"""Descriptions a second against Hugging Face's `generate`, on the embedded model; prints JSON.

Each comparison alternates the two sides and gives the median of the ratios, with their lowest and highest. Hugging Face
gets the same edited embeddings (`inputs_embeds`), its default attention and the same number of new tokens. Quiet the
machine first: the figures are worth what the machine was doing.

    python benchmarks/speed.py [--repeats 5] [--vectors 64] [--output benchmarks/results/speed.json]
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from interp_toolkit import SoftPrompt, load_model, read_activations
from interp_toolkit.contract import library_versions
from interp_toolkit.models import model_facts
from interp_toolkit.models.dtype import choose_dtype, fast_bfloat16
from interp_toolkit.models.embedded import embedded_checkpoint
from interp_toolkit.runtime import PromptRun, generate
from interp_toolkit.runtime.generate import Until
from interp_toolkit.shipped import default_adapter

NEW_TOKENS = 12
TOPICS = ["baseball", "jazz", "Poland", "volcanoes", "chess", "penguins", "diabetes", "gravity"]
TOPICS += ["cheese", "Shakespeare", "bridges", "tea", "rivers", "Japan", "algebra", "violins"]


class Sides:
    """The embedded model on both sides, in one dtype, with the same soft tokens."""

    def __init__(self, dtype: torch.dtype, vectors: int) -> None:
        self.model = load_model("smollm2-135m", dtype=dtype)
        self.run = PromptRun(self.model, SoftPrompt.for_chat(self.model.tokenizer))
        adapter = default_adapter(model_facts(self.model))
        assert adapter.contract is not None
        assert adapter.contract.site is not None
        prompts = [f"Tell me about {TOPICS[i % 16]}, part {i // 16}." for i in range(vectors)]
        read = read_activations(self.model, prompts, adapter.contract.site).vectors
        self.soft_tokens = adapter(adapter.contract.centre(read))
        self.theirs: Any = AutoModelForCausalLM.from_pretrained(embedded_checkpoint(), dtype=dtype).eval()
        ids = torch.tensor([self.run.tokens.ids] * vectors)
        self.embeddings = self.theirs.get_input_embeddings()(ids).detach().clone()
        self.embeddings[:, list(self.run.tokens.slots)] = self.soft_tokens[:, None].to(dtype)
        self.mask = torch.ones_like(ids)
        closing = [i for token, i in self.model.tokenizer.get_vocab().items() if '"' in token]
        self.ends = [2, *closing]

    def ours(self, samples: int = 1, until: Until = "length") -> None:
        temperature = 0.7 if samples > 1 else 0.0
        generate(
            self.run,
            self.soft_tokens,
            samples=samples,
            temperature=temperature,
            max_new_tokens=NEW_TOKENS,
            until=until,
        )

    @torch.no_grad()
    def hugging_face(self, samples: int = 1, until: Until = "length") -> None:
        settings = dict(do_sample=True, temperature=0.7, top_k=0) if samples > 1 else dict(do_sample=False)
        if until == "length":
            settings |= dict(min_new_tokens=NEW_TOKENS)
        else:
            settings |= dict(eos_token_id=self.ends)
        self.theirs.generate(
            inputs_embeds=self.embeddings,
            attention_mask=self.mask,
            max_new_tokens=NEW_TOKENS,
            num_return_sequences=samples,
            pad_token_id=2,
            **settings,
        )

    def flops(self, samples: int) -> float:
        """Multiply-adds, times two, of the matrix products of our side when every text has its full length."""
        layers = sum(
            module.weight.numel()
            for name, module in self.theirs.named_modules()
            if isinstance(module, torch.nn.Linear) and "lm_head" not in name
        )
        head = self.theirs.lm_head.weight.numel()
        n, tail = len(self.soft_tokens), len(self.run.tokens.tail)
        steps = n * samples * (NEW_TOKENS - 1)
        return 2.0 * (layers * (n * tail + steps) + head * (n + steps))


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def compare(slow: Callable[[], object], fast: Callable[[], object], repeats: int) -> dict[str, Any]:
    """Seconds of both sides, in turn, and the ratios slow / fast."""
    slow()
    fast()
    pairs = [(seconds(slow), seconds(fast)) for _ in range(repeats)]
    ratios = [a / b for a, b in pairs]
    return dict(
        ratio=statistics.median(ratios),
        lowest=min(ratios),
        highest=max(ratios),
        repeats=repeats,
        slow_seconds=[a for a, _ in pairs],
        fast_seconds=[b for _, b in pairs],
    )


def matrix_peak(dtype: torch.dtype) -> float:
    """The best of several shapes and repeats, in floating-point operations a second."""
    best = 0.0
    for m, k, n in ((2048, 2048, 2048), (1024, 576, 1536), (1024, 1536, 576)):
        a, b = torch.randn(m, k).to(dtype), torch.randn(k, n).to(dtype)
        repeats = 10 if seconds(lambda: a @ b) < 0.5 else 2  # noqa: B023 - called before the loop goes on
        best = max(best, *(2 * m * k * n / seconds(lambda: a @ b) for _ in range(repeats)))  # noqa: B023
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--vectors", type=int, default=64)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    cpu = torch.device("cpu")
    default = choose_dtype(None, cpu)
    sides = Sides(torch.float32, options.vectors)
    peak = matrix_peak(torch.float32)
    told: dict[str, Any] = dict(
        machine=dict(processor=_processor(), threads=torch.get_num_threads(), fast_bfloat16=fast_bfloat16(cpu)),
        versions=library_versions(),
        vectors=options.vectors,
        new_tokens=NEW_TOKENS,
        seed=0,
        peak_gflops_float32=peak / 1e9,
        comparisons={},
    )
    compared = told["comparisons"]
    for samples, target in ((1, 1.6), (6, 3.0)):
        found = compare(
            lambda n=samples: sides.hugging_face(n),
            lambda n=samples: sides.ours(n),
            max(1, options.repeats // (1 + samples // 4)),
        )
        found["target"] = target
        took = statistics.median(found["fast_seconds"])
        found["descriptions_a_second"] = options.vectors * samples / took
        found["share_of_peak"] = sides.flops(samples) / took / peak
        compared[f"hugging face, float32, {samples} sample{'s' * (samples > 1)}, fixed length"] = found
    compared["hugging face, float32, 1 sample, to the closing quote"] = compare(
        lambda: sides.hugging_face(until="quote"), lambda: sides.ours(until="quote"), options.repeats
    )
    if default == torch.float32:
        note = "float32 is the default here: this processor has no fast bfloat16, so there is nothing to compare"
        compared["default dtype against float32"] = dict(target=4.0, ratio=None, note=note)
    else:
        other = Sides(default, options.vectors)
        compared[f"default dtype ({default}) against float32"] = dict(
            compare(sides.ours, other.ours, options.repeats), target=4.0
        )
    told["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    text = json.dumps(told, indent=2)
    print(text)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text + "\n")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
