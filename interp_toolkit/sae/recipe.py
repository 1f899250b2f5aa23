"""A whole SAE from one file: corpus, activations, training, quality, top examples."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from interp_toolkit.deprecation import renamed_fields
from interp_toolkit.errors import FileFormatError, InterpToolkitError
from interp_toolkit.files import whole_file
from interp_toolkit.models import load_model, model_facts
from interp_toolkit.sae.passages import TokenRows, read_passages, token_rows
from interp_toolkit.sae.quality import sae_quality
from interp_toolkit.sae.search import find_top_examples
from interp_toolkit.sae.store import store_activations
from interp_toolkit.sae.top_examples import TopExamples
from interp_toolkit.sae.training import SAEConfig, train
from interp_toolkit.settings import naming, read_yaml, settings_from
from interp_toolkit.sites import Site
from interp_toolkit.torch_defaults import plain_defaults


@renamed_fields(contexts="top_examples")
@dataclass(frozen=True)
class SAERecipe:
    """All that decides an SAE.

    Attributes:
        output: folder that gets ``sae/``, ``quality.csv`` and ``contexts.safetensors``.
        passages: file of passages, in the data folder, see `read_passages`.
        site: the one place that the SAE reads.
        model: as `load_model` takes it.
        dtype: of the model, as `load_model` takes it.
        context: longest row of tokens.
        train: how many passages of split ``train`` to take, drawn by the SAE's seed; None for all.
        eval: how many of split ``eval`` the quality is measured on; None for all.
        top_examples: how many top activating examples to save per feature.
        sae: settings of the training.
    """

    output: str
    passages: str
    site: str
    model: str = "smollm2-135m"
    dtype: str | None = None
    context: int = 256
    train: int | None = None
    eval: int | None = 200
    top_examples: int = 20
    sae: SAEConfig = field(default_factory=SAEConfig)

    def __post_init__(self) -> None:
        Site.parse(self.site)
        for name in ("train", "eval"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise InterpToolkitError(f"expected {name} of at least 1 passage, got {value}")

    @classmethod
    def read(cls, path: str | Path) -> SAERecipe:
        """A recipe from a YAML file with these names.

        Raises:
            FileFormatError: missing, or no YAML.
            InterpToolkitError: an unknown key or a value of the wrong kind.
        """
        path = Path(path).expanduser()
        if not path.exists():
            raise FileFormatError(f"could not read the recipe of an SAE at {path}: there is no such file")
        data = read_yaml(path, "the recipe of an SAE")
        with naming(path):
            if isinstance(data, dict) and "sae" in data:
                data = {**data, "sae": settings_from(SAEConfig, data["sae"], "'sae'")}
            return settings_from(cls, data, "the recipe")

    def rows(self, tokenizer: Any, data: str | Path, split: str) -> TokenRows:
        """The tokens of the passages that this recipe takes of a split; ``passage`` counts in the split's order.

        Args:
            tokenizer: of the model.
            data: folder that the recipe's paths are relative to.
            split: ``"train"`` or ``"eval"``.

        Raises:
            FileFormatError: the passages are missing or damaged.
        """
        limit = self.train if split == "train" else self.eval
        passages = read_passages(Path(data) / self.passages, split)
        if limit is not None and limit < len(passages):
            passages = passages.sample(limit, random_state=self.sae.seed).sort_index()
        rows = token_rows(tokenizer, passages["text"].tolist(), self.context)
        numbers = passages.index.tolist()
        return TokenRows(rows.ids, tuple(numbers[i] for i in rows.passage))

    @plain_defaults()
    def run(self, data: str | Path, model: Any = None, *, progress: bool = False) -> SAEResult:
        """Train the SAE, or go on where an earlier run of the same recipe was interrupted.

        Args:
            data: the folder that ``passages`` is in.
            model: the hooked model, if it is loaded already.
            progress: whether to show bars.

        Returns:
            the SAE with its quality and its top examples.

        Raises:
            InterpToolkitError: as `read_passages`, `store_activations`, `train` and `find_top_examples`.

        Example:
            >>> result = SAERecipe.read("smollm2_sae.yaml").run("data", progress=True)
            >>> result.quality
        """
        model = load_model(self.model, dtype=self.dtype) if model is None else model
        folder, site = Path(self.output).expanduser(), Site.parse(self.site)
        store = store_activations(model, self.rows(model.tokenizer, data, "train"), site, progress=progress)[site]
        sae = train(store, self.sae, folder, facts=model_facts(model), progress=progress)
        quality_path = folder / "quality.csv"
        if not quality_path.exists():
            rows = self.rows(model.tokenizer, data, "eval")
            with whole_file(quality_path) as draft:
                sae_quality(model, sae, rows, seed=self.sae.seed, progress=progress).to_csv(draft, index=False)
        path = folder / "contexts.safetensors"
        examples = find_top_examples(sae, store, path, model.tokenizer, count=self.top_examples, progress=progress)
        return SAEResult(sae, pd.read_csv(quality_path), examples, store.tokens_per_second)


@renamed_fields(contexts="top_examples", tokens_a_second="tokens_per_second")
@dataclass(frozen=True, eq=False)
class SAEResult:
    """An SAE with its quality and its top examples.

    Attributes:
        sae: the SAE.
        quality: as `sae_quality` returns it.
        top_examples: of each feature.
        tokens_per_second: how fast activations were read; None where all were there.
    """

    sae: Any
    quality: pd.DataFrame
    top_examples: TopExamples
    tokens_per_second: float | None
