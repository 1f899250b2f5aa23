"""Descriptions per second against Hugging Face's `generate`, on the embedded model.

Hugging Face gets the same edited embeddings (`inputs_embeds`), its default attention and the same number of new tokens.
"""

from __future__ import annotations

import statistics
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from benchmarks.speed.sizes import Sizes
from benchmarks.speed.timing import compare, linear_weights, matrix_peak
from benchmarks.titles import contract_and_site
from interp_toolkit import SoftPrompt, load_model, read_activations
from interp_toolkit.models.dtype import choose_dtype
from interp_toolkit.models.embedded import embedded_checkpoint
from interp_toolkit.runtime import PromptRun, generate
from interp_toolkit.runtime.generate import Until
from interp_toolkit.shipped import find_adapter

NEW_TOKENS = 12
TOPICS = ["baseball", "jazz", "Poland", "volcanoes", "chess", "penguins", "diabetes", "gravity"]
TOPICS += ["cheese", "Shakespeare", "bridges", "tea", "rivers", "Japan", "algebra", "violins"]


class Sides:
    """The embedded model on both sides, in one dtype, with the same soft tokens."""

    def __init__(self, dtype: torch.dtype, vectors: int) -> None:
        self.model = load_model("smollm2-135m", dtype=dtype)
        self.run = PromptRun(self.model, SoftPrompt.for_chat(self.model.tokenizer))
        adapter = find_adapter("smollm2_rank64")  # of one soft token, as the method's published code has
        contract, site = contract_and_site(adapter)
        prompts = [f"Tell me about {TOPICS[i % 16]}, part {i // 16}." for i in range(vectors)]
        self.soft_tokens = adapter(contract.centre(read_activations(self.model, prompts, site.sites).vectors))
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
        blocks, head = linear_weights(self.theirs)
        n, tail = len(self.soft_tokens), len(self.run.tokens.tail)
        steps = n * samples * (NEW_TOKENS - 1)
        return 2.0 * (blocks * (n * tail + steps) + head * (n + steps))


def measure(sizes: Sizes, repeats: int) -> dict[str, Any]:
    """The comparisons, by name."""
    default = choose_dtype(None, torch.device("cpu"))
    name = str(default).removeprefix("torch.")
    sides = Sides(torch.float32, sizes.vectors)
    comparisons: dict[str, Any] = {}
    for samples, target in ((1, 2.2), (6, 5.0)):
        comparison = compare(
            lambda n=samples: sides.hugging_face(n),
            lambda n=samples: sides.ours(n),
            max(1, repeats // (1 + samples // 4)),
        )
        comparison |= dict(target=target, **_rates(sides, samples, comparison["fast_seconds"]))
        comparisons[f"describing, {samples} sample{'s' * (samples > 1)}, float32"] = comparison
    comparison = compare(lambda: sides.hugging_face(until="quote"), lambda: sides.ours(until="quote"), repeats)
    comparison["rate"] = sizes.vectors / statistics.median(comparison["fast_seconds"])
    comparisons["describing, 1 sample, to the closing quote"] = comparison
    if default == torch.float32:
        note = "float32 is the default here: this processor has no fast bfloat16, so there is nothing to compare"
        comparisons["describing, default dtype against float32"] = dict(target=3.0, ratio=None, note=note)
    else:
        other = Sides(default, sizes.vectors)
        comparison = dict(compare(sides.ours, other.ours, repeats), target=3.0)
        comparison |= _rates(other, 1, comparison["fast_seconds"])
        comparisons[f"describing, default dtype ({name}) against float32"] = comparison
    return comparisons


def against_published(sizes: Sizes, repeats: int) -> dict[str, Any]:
    """The comparison of the default dtype with `generate` in float32, which the method's published code calls, by name.

    Args:
        sizes: how much is measured.
        repeats: of both sides in turn.
    """
    default = choose_dtype(None, torch.device("cpu"))
    if default == torch.float32:
        return {}  # made above
    theirs, ours = Sides(torch.float32, sizes.vectors), Sides(default, sizes.vectors)
    comparison = dict(compare(theirs.hugging_face, ours.ours, repeats), target=4.0)
    comparison |= _rates(ours, 1, comparison["fast_seconds"])
    return {f"describing, 1 sample, {str(default).removeprefix('torch.')} against `generate` in float32": comparison}


def _rates(sides: Sides, samples: int, seconds: list[float]) -> dict[str, float]:
    """Descriptions per second, and the share of what the machine's products reach in that dtype."""
    median = statistics.median(seconds)
    flops, peak = sides.flops(samples), matrix_peak(sides.model.W_E.dtype)
    return dict(rate=len(sides.soft_tokens) * samples / median, share_of_peak=flops / median / peak)
