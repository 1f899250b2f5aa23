"""Top activating examples of features: the windows of text in which each feature is most active, in one file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from interp_toolkit.deprecation import renamed_fields, warn_renamed
from interp_toolkit.errors import ContractError, FileFormatError, first_line
from interp_toolkit.files import check_digest
from interp_toolkit.sae.facts import check_features, sae_digest
from interp_toolkit.tables import brief_repr

FORMAT = "sae_contexts_v1"
_COLUMNS = [
    *("feature", "rank", "value", "row", "passage", "start", "peak"),
    *("token_ids", "tokens", "activations", "text"),
]


@renamed_fields(told="metadata", firing="activation_rates")
@dataclass(frozen=True, eq=False)
class TopExamples:
    """Top activating examples of an SAE's features on disk; a look-up reads those of one feature.

    Attributes:
        path: the file.
        tokenizer: of the model, for the texts.
        metadata: ``sae`` (digest), ``activations`` (digest of the store), ``model``, ``site``, ``tokens`` (how many
            were searched), as strings.
        features: one row per feature: ``feature``, ``active_tokens`` (on how many tokens it is active), ``rate``,
            ``mean`` (activation where it is active) and ``max``. A feature with 0 ``active_tokens`` has no examples.
    """

    path: Path
    tokenizer: Any
    metadata: Mapping[str, str]
    features: pd.DataFrame

    __repr__ = brief_repr

    @classmethod
    def open(cls, path: str | Path, tokenizer: Any) -> TopExamples:
        """Open a file that `find_top_examples` wrote.

        Raises:
            FileFormatError: missing, damaged, or of another format.
        """
        path = Path(path).expanduser()
        try:
            with safe_open(path, framework="np") as stream:
                metadata = dict(stream.metadata() or {})
                if metadata.get("format") != FORMAT:
                    raise ValueError(f"expected format {FORMAT!r}")
                check_digest(metadata, ((name, stream.get_tensor(name)) for name in sorted(stream.keys())))
                metadata.pop("format")
                active, total = stream.get_tensor("fires"), stream.get_tensor("total")
                best = stream.get_slice("value")[:, :1][:, 0]
            tokens = int(metadata["tokens"])
            if not active.shape == total.shape == best.shape:
                raise ValueError(f"it is of {active.shape}, {total.shape} and {best.shape} features")
        except FileNotFoundError:
            raise FileFormatError(f"expected a file of top examples at {path}, and there is none") from None
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise FileFormatError(f"the file of top examples {path} is damaged: {first_line(error)}") from error
        features = pd.DataFrame(
            {
                "feature": np.arange(len(active)),
                "active_tokens": active,
                "rate": active / tokens,
                "mean": total / np.maximum(active, 1),
                "max": best.astype(np.float64),
            }
        )
        return cls(path, tokenizer, metadata, features)

    @property
    def activation_rates(self) -> Float[Tensor, " features"]:
        """The share of tokens on which each feature is active, as `sae_vectors` takes it."""
        return torch.from_numpy(self.features["rate"].to_numpy(dtype=np.float32))

    def require_sae(self, sae: Any) -> None:
        """Refuse another SAE than the one whose examples these are.

        Raises:
            ContractError: the text names both.
        """
        digest = sae_digest(sae)
        if self.metadata.get("sae") != digest:
            raise ContractError(
                f"{self.path} holds top examples of the SAE {self.metadata.get('sae')}, and this one is {digest}; "
                f"search for its own"
            )

    def get(self, feature: int, count: int | None = None) -> pd.DataFrame:
        """The examples in which a feature is most active, each from another row of tokens, best first.

        Args:
            feature: its number.
            count: at most so many; None for all in the file.

        Returns:
            columns ``feature rank value row passage start peak token_ids tokens activations text``: ``value`` is the
            activation at the peak; ``row`` and ``start`` say where the window of tokens begins; ``peak`` counts within
            the window; ``token_ids``, ``tokens`` (texts) and ``activations`` are tuples of one length; ``text`` is the
            window as it reads. No rows for an inactive feature.

        Raises:
            InterpToolkitError: no such feature.

        Example:
            >>> examples.get(7)[["value", "text"]]
        """
        check_features([feature], len(self.features))
        names = ("value", "row", "passage", "start", "position", "length", "ids", "activations")
        with safe_open(self.path, framework="np") as stream:
            arrays = {name: stream.get_slice(name)[feature : feature + 1][0] for name in names}
        ranks = [rank for rank in range(len(arrays["value"])) if arrays["value"][rank] > 0][:count]
        rows = []
        for rank in ranks:
            length = arrays["length"][rank]
            start, position = arrays["start"][rank], arrays["position"][rank]
            window = (arrays["ids"][rank][:length], arrays["activations"][rank][:length])
            place = (arrays["row"][rank], arrays["passage"][rank], start, position - start)
            rows.append((feature, rank, float(arrays["value"][rank]), *map(int, place), *self._texts(*window)))
        return pd.DataFrame(rows, columns=_COLUMNS)

    def inactive(self, feature: int, count: int, seed: int = 0) -> pd.DataFrame:
        """Draw random windows in which a feature is never active, as many as asked for and there are.

        Args:
            feature: its number.
            count: how many.
            seed: of the draw.

        Returns:
            columns as in `get`, with ``value`` 0 and ``peak`` -1.

        Raises:
            InterpToolkitError: no such feature.
        """
        check_features([feature], len(self.features))
        names = ("row", "passage", "start", "length", "ids")
        with safe_open(self.path, framework="np") as stream:
            largest = stream.get_slice("pool_max")[feature : feature + 1][0]
            arrays = {name: stream.get_tensor(f"pool_{name}") for name in names}
        without = np.flatnonzero(largest == 0)
        rows = []
        for rank, i in enumerate(np.random.default_rng((seed, feature)).permutation(without)[:count]):
            ids = arrays["ids"][i][: arrays["length"][i]]
            place = (arrays["row"][i], arrays["passage"][i], arrays["start"][i])
            rows.append((feature, rank, 0.0, *map(int, place), -1, *self._texts(ids, np.zeros(len(ids)))))
        return pd.DataFrame(rows, columns=_COLUMNS)

    def of(self, feature: int, count: int | None = None) -> pd.DataFrame:
        """Deprecated name of `get`."""
        warn_renamed("Contexts.of", "TopExamples.get")
        return self.get(feature, count)

    def silent(self, feature: int, count: int, seed: int = 0) -> pd.DataFrame:
        """Deprecated name of `inactive`."""
        warn_renamed("Contexts.silent", "TopExamples.inactive")
        return self.inactive(feature, count, seed)

    def _texts(
        self, ids: np.ndarray, activations: np.ndarray
    ) -> tuple[tuple[int, ...], tuple[str, ...], tuple[float, ...], str]:
        numbers = tuple(map(int, ids))
        tokens = tuple(self.tokenizer.decode([number]) for number in numbers)
        return numbers, tokens, tuple(map(float, activations)), self.tokenizer.decode(list(numbers))
