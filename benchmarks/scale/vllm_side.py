"""`VllmEngine` against plain vLLM on as many tokens, and a hooked model against it."""

from __future__ import annotations

import importlib
import statistics
from pathlib import Path
from typing import Any

import torch

from benchmarks.scale.bulk import random_directions
from benchmarks.speed.timing import compare, seconds
from interp_toolkit import load_model
from interp_toolkit.engines import VllmEngine
from interp_toolkit.runtime import PromptRun, generate
from interp_toolkit.shipped import find_adapter
from interp_toolkit.soft_prompt import PromptTokens, SoftPrompt

_NEW_TOKENS = 12
# Enough to fill vLLM's batches; a turn takes half a minute.
_VECTORS = 256


def measure(folder: Path, vectors: int, repeats: int) -> list[dict[str, Any]]:
    """Seconds of each pair of sides and their ratio, at both dtypes.

    Args:
        folder: unused; vLLM keeps what it needs in memory.
        vectors: to describe, greedily, each to its full length; no more than 256.
        repeats: of both sides.
    """
    del folder
    vectors = min(vectors, _VECTORS)
    adapter, rows = find_adapter("smollm2_rank64"), []
    soft_prompt = adapter.require_contract().require_soft_prompt()
    with torch.no_grad():
        soft_tokens = adapter(torch.from_numpy(random_directions(vectors, adapter.config.width)))
    settings: Any = dict(max_new_tokens=_NEW_TOKENS, until="length")
    dtypes = ("float32", "bfloat16")
    # Before vLLM runs: from then on torch does not set its number of threads in this process.
    alone = {dtype: _here(soft_prompt, soft_tokens, dtype, repeats, settings) for dtype in dtypes}
    for dtype in dtypes:
        engine, run = VllmEngine("smollm2-135m", dtype=dtype), alone[dtype][0]

        def by_engine(engine: Any = engine) -> None:
            engine.generate(soft_prompt, soft_tokens, **settings)

        prompts = _plain_prompts(run.tokens, vectors)

        def by_vllm(llm: Any = engine.llm, prompts: Any = prompts) -> None:
            parameters = importlib.import_module("vllm").SamplingParams(
                temperature=0, max_tokens=_NEW_TOKENS, ignore_eos=True, logprobs=0
            )
            llm.generate(prompts, parameters, use_tqdm=False)

        more = dict(vectors=vectors, new_tokens=_NEW_TOKENS)
        sides = compare(by_engine, by_vllm, repeats)
        rows.append(dict(what=f"`VllmEngine` against plain vLLM, {dtype}", target="at most 1.2", **more, **sides))
        rows.append(dict(what=f"vLLM against a hooked model, {dtype}", **more, **_ratios(sides, alone[dtype][1])))
    return rows


def _here(
    soft_prompt: SoftPrompt, soft_tokens: torch.Tensor, dtype: str, repeats: int, settings: Any
) -> tuple[PromptRun, list[float]]:
    """The prompt on a hooked model, and the seconds that it takes there."""
    run = PromptRun(load_model("smollm2-135m", dtype=dtype), soft_prompt)

    def here() -> None:
        generate(run, soft_tokens, **settings)

    here()
    return run, [seconds(here) for _ in range(repeats)]


def _ratios(sides: dict[str, Any], alone: list[float]) -> dict[str, Any]:
    """Of the first side's seconds to those of a hooked model, which ran before."""
    ratios = sorted(a / b for a in sides["slow_seconds"] for b in alone)
    facts = dict(ratio=statistics.median(ratios), lowest=ratios[0], highest=ratios[-1], repeats=len(alone))
    return facts | dict(slow_seconds=sides["slow_seconds"], fast_seconds=alone)


def _plain_prompts(tokens: PromptTokens, count: int) -> list[dict[str, list[int]]]:
    """As many prompts of the same length, with another ordinary token at the slots of each."""
    return [
        dict(prompt_token_ids=[1000 + row if i in tokens.slots else token for i, token in enumerate(tokens.ids)])
        for row in range(count)
    ]
