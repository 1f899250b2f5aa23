"""An SAE of the embedded model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from interp_toolkit.sae import SAERecipe


def train(recipe: SAERecipe, data: Path, limit: int | None) -> None:
    """Train an SAE by its recipe, or go on with it, and print its quality.

    Args:
        recipe: of the SAE.
        data: folder that its passages are in.
        limit: of passages in a trial, which goes to a folder apart; or None.
    """
    if limit is not None:
        output = f"{recipe.output}-limit-{limit}"
        recipe = replace(recipe, train=limit, eval=min(limit, recipe.eval or 20), output=output)
    result = recipe.run(data, progress=True)
    print(result.quality.to_string(index=False))
    if result.tokens_per_second:
        print(f"activations: {result.tokens_per_second:.0f} tokens per second")
