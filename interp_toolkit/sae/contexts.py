"""Where features are most active: the best contexts of every feature, found in one pass and kept in one file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from interp_toolkit.errors import FileFormatError, first_line
from interp_toolkit.files import check_digest
from interp_toolkit.sae.directions import check_features

FORMAT = "sae_contexts_v1"
_COLUMNS = [
    "feature",
    "rank",
    "value",
    "row",
    "passage",
    "start",
    "peak",
    "token_ids",
    "tokens",
    "activations",
    "text",
]


@dataclass(frozen=True, eq=False)
class Contexts:
    """Contexts of an SAE's features on disk, of which a look-up reads one feature's.

    Attributes:
        path: the file.
        tokenizer: of the model, for the texts.
        told: ``sae`` (digest), ``activations`` (digest of the store), ``model``, ``site``, ``tokens`` (how many were
            looked through), as strings.
        features: one row a feature: ``feature``, ``fires`` (on how many tokens), ``rate``, ``mean`` (activation where
            it is active) and ``max``. A feature with ``fires`` of 0 has no contexts.
    """

    path: Path
    tokenizer: Any
    told: dict[str, str]
    features: pd.DataFrame

    @classmethod
    def open(cls, path: str | Path, tokenizer: Any) -> Contexts:
        """Contexts that `write_contexts` wrote.

        Raises:
            FileFormatError: missing, damaged, or of another format.
        """
        path = Path(path).expanduser()
        try:
            with safe_open(path, framework="np") as stream:
                told = dict(stream.metadata() or {})
                if told.get("format") != FORMAT:
                    raise ValueError(f"expected format {FORMAT!r}")
                check_digest(told, ((name, stream.get_tensor(name)) for name in sorted(stream.keys())))
                told.pop("format")
                fires, total = stream.get_tensor("fires"), stream.get_tensor("total")
                best = stream.get_slice("value")[:, :1][:, 0]
            tokens = int(told["tokens"])
            if not fires.shape == total.shape == best.shape:
                raise ValueError(f"it tells of {fires.shape}, {total.shape} and {best.shape} features")
        except FileNotFoundError:
            raise FileFormatError(f"expected a file of contexts at {path}, and there is none") from None
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise FileFormatError(f"the file of contexts {path} is damaged: {first_line(error)}") from error
        table = pd.DataFrame(
            {
                "feature": np.arange(len(fires)),
                "fires": fires,
                "rate": fires / tokens,
                "mean": total / np.maximum(fires, 1),
                "max": best.astype(np.float64),
            }
        )
        return cls(path, tokenizer, told, table)

    @property
    def firing(self) -> Float[Tensor, " features"]:
        """How often each feature fires, as `sae_vectors` takes it."""
        return torch.from_numpy(self.features["rate"].to_numpy(dtype=np.float32))

    def of(self, feature: int, count: int | None = None) -> pd.DataFrame:
        """The contexts in which a feature is most active, each from another row of tokens, best first.

        Args:
            feature: its number.
            count: at most so many; None for all that are kept.

        Returns:
            columns ``feature rank value row passage start peak token_ids tokens activations text``: ``value`` is the
            activation at the peak; ``row`` and ``start`` say where the window of tokens begins; ``peak`` counts within
            the window; ``token_ids``, ``tokens`` (texts) and ``activations`` are tuples of one length; ``text`` is the
            window as it reads. No rows for a feature that never fires.

        Raises:
            InterpToolkitError: no such feature.

        Example:
            >>> contexts.of(7)[["value", "text"]]
        """
        check_features([feature], len(self.features))
        names = ("value", "row", "passage", "start", "position", "length", "ids", "activations")
        with safe_open(self.path, framework="np") as stream:
            held = {name: stream.get_slice(name)[feature : feature + 1][0] for name in names}
        kept = [rank for rank in range(len(held["value"])) if held["value"][rank] > 0][:count]
        rows = []
        for rank in kept:
            length = held["length"][rank]
            start, position = held["start"][rank], held["position"][rank]
            window = (held["ids"][rank][:length], held["activations"][rank][:length])
            place = (held["row"][rank], held["passage"][rank], start, position - start)
            rows.append((feature, rank, float(held["value"][rank]), *map(int, place), *self._texts(*window)))
        return pd.DataFrame(rows, columns=_COLUMNS)

    def silent(self, feature: int, count: int, seed: int = 0) -> pd.DataFrame:
        """Random windows in which a feature is never active, as many as are asked for and there are.

        Args:
            feature: its number.
            count: how many.
            seed: of the draw.

        Returns:
            columns as in `of`, with ``value`` 0 and ``peak`` -1.

        Raises:
            InterpToolkitError: no such feature.
        """
        check_features([feature], len(self.features))
        names = ("row", "passage", "start", "length", "ids")
        with safe_open(self.path, framework="np") as stream:
            largest = stream.get_slice("pool_max")[feature : feature + 1][0]
            held = {name: stream.get_tensor(f"pool_{name}") for name in names}
        without = np.flatnonzero(largest == 0)
        rows = []
        for rank, i in enumerate(np.random.default_rng((seed, feature)).permutation(without)[:count]):
            ids = held["ids"][i][: held["length"][i]]
            place = (held["row"][i], held["passage"][i], held["start"][i])
            rows.append((feature, rank, 0.0, *map(int, place), -1, *self._texts(ids, np.zeros(len(ids)))))
        return pd.DataFrame(rows, columns=_COLUMNS)

    def _texts(
        self, ids: np.ndarray, activations: np.ndarray
    ) -> tuple[tuple[int, ...], tuple[str, ...], tuple[float, ...], str]:
        numbers = tuple(map(int, ids))
        tokens = tuple(self.tokenizer.decode([number]) for number in numbers)
        return numbers, tokens, tuple(map(float, activations)), self.tokenizer.decode(list(numbers))
