"""What bfloat16 changes of evidence and thresholds.

For each shipped adapter: the same descriptions' evidence in bfloat16 and in float32 on held-out titles, and the
threshold calibrated in either on training titles, with a bootstrap interval of the float32 one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from benchmarks.titles import centred_vectors
from interp_toolkit import Adapter, load_model
from interp_toolkit.contract import library_versions
from interp_toolkit.evaluation.context import SEED, EvalContext
from interp_toolkit.evaluation.selective_prediction import EvidenceControls, calibrate_threshold, evidence_controls
from interp_toolkit.models import model_facts
from interp_toolkit.results import make_result, write_result
from interp_toolkit.runtime import PromptRun, evidence, generate
from interp_toolkit.shipped import NAMES, find_adapter

_TITLES = 500
_RESAMPLES = 1000


def measure_dtypes(context: EvalContext, path: Path) -> None:
    """Measure each shipped adapter with the model in both dtypes.

    Args:
        context: titles to calibrate and to measure on; its model is not used.
        path: of the results file.
    """
    titles = context.titles
    models = {dtype: load_model("smollm2-135m", dtype=dtype) for dtype in ("float32", "bfloat16")}
    facts = model_facts(models["float32"])
    rows = []
    for name in NAMES:
        adapter = find_adapter(name)
        # Vectors are read in the dtype in which they are described, as a user's are.
        dev, held_out = (
            {dtype: centred_vectors(model, adapter, side[:_TITLES]) for dtype, model in models.items()}
            for side in (titles.dev, titles.held_out)
        )
        controls = {dtype: evidence_controls(model, adapter, dev[dtype], SEED) for dtype, model in models.items()}
        thresholds = {dtype: calibrate_threshold(samples).value for dtype, samples in controls.items()}
        low, high = _threshold_interval(controls["float32"])
        rows.append(
            dict(adapter=name, digest=adapter.digest)
            | _difference(models, adapter, held_out["bfloat16"], thresholds)
            | dict(threshold=thresholds["float32"], low=low, high=high, threshold_bfloat16=thresholds["bfloat16"])
        )
        print(rows[-1], flush=True)
    settings = dict(
        model=facts.model_id,
        revision=facts.revision,
        titles=titles.digest,
        n=min(_TITLES, len(titles.held_out)),
        seed=SEED,
        processor=torch.backends.cpu.get_cpu_capability(),
        amx=torch.cpu._is_amx_tile_supported(),
    )
    write_result(path, make_result(settings, library_versions(), dict(dtypes=rows)))


@torch.no_grad()
def _difference(
    models: dict[str, Any], adapter: Adapter, vectors: torch.Tensor, thresholds: dict[str, float]
) -> dict[str, float]:
    """Evidence of the same descriptions of the same vectors, bfloat16 less float32, in nats per token."""
    soft_prompt = adapter.require_contract().require_soft_prompt()
    runs = {dtype: PromptRun(model, soft_prompt) for dtype, model in models.items()}
    soft_tokens, null = adapter(vectors), adapter.null()
    texts = [row[0].token_ids for row in generate(runs["bfloat16"], soft_tokens)]
    values = {dtype: evidence(run, null, texts, soft_tokens)[1] for dtype, run in runs.items()}
    difference = values["bfloat16"] - values["float32"]
    verdicts = {dtype: values[dtype] >= thresholds["float32"] for dtype in values}
    return dict(
        n=len(texts),
        mean_difference=difference.mean().item(),
        sd_difference=difference.std().item(),
        max_difference=difference.abs().max().item(),
        within_002=(difference.abs() <= 0.02).double().mean().item(),
        verdicts_that_differ=(verdicts["bfloat16"] != verdicts["float32"]).double().mean().item(),
    )


def _threshold_interval(controls: EvidenceControls) -> tuple[float, float]:
    """95% percentile bootstrap over vectors; of a quantile, of which no closer interval is at hand."""
    generator = torch.Generator().manual_seed(SEED)
    n = len(controls.matched)
    values = []
    for _ in range(_RESAMPLES):
        rows = torch.randint(n, (n,), generator=generator)
        resampled = EvidenceControls(controls.matched[rows], controls.shuffled[rows], controls.random[rows], ("",) * n)
        values.append(calibrate_threshold(resampled).value)
    low, high = torch.tensor(values).quantile(torch.tensor([0.025, 0.975])).tolist()
    return low, high
