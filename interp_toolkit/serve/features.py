"""An SAE's features, searched by text: labels beside descriptions, and top activating examples."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from interp_toolkit.bulk import read_feature_descriptions
from interp_toolkit.bulk.parts import job_settings
from interp_toolkit.errors import ContractError, InterpToolkitError
from interp_toolkit.sae import TopExamples, labels

# Top activating examples of a feature that are sent.
_EXAMPLES = 5


class Features:
    """Features that are served.

    Args:
        descriptions: of `read_feature_descriptions`.
        labels: texts by feature, in the order in which they are shown.
        examples: of the same SAE; None where none are shown.
    """

    def __init__(
        self,
        descriptions: pd.DataFrame,
        labels: Mapping[int, Sequence[str]] | None = None,
        examples: TopExamples | None = None,
    ) -> None:
        self._labels, self._examples = dict(labels or {}), examples
        self._descriptions: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for feature, text, evidence in descriptions[["feature", "description", "evidence"]].itertuples(index=False):
            if isinstance(text, str) and text.strip():
                value = float(evidence) if evidence is not None and math.isfinite(evidence) else None
                self._descriptions[int(feature)].append(dict(text=text, evidence=value, scores=[]))
        self._numbers = sorted({*map(int, descriptions["feature"]), *self._labels})
        self._texts = [self._text(feature) for feature in self._numbers]

    @classmethod
    def read(
        cls, descriptions: str | Path, label_file: str | Path | None, examples: str | Path | None, tokenizer: Any
    ) -> Features:
        """Read what is served from files.

        Args:
            descriptions: the folder of ``interp-toolkit sae describe``.
            label_file: what `interp_toolkit.sae.labels` reads; None for none.
            examples: the file of `find_top_examples`; None for none.
            tokenizer: of the model.

        Raises:
            FileFormatError: a file is missing, damaged or of another kind.
            ContractError: examples of another SAE.
        """
        by_feature = labels(label_file).by_feature() if label_file is not None else None
        table = read_feature_descriptions(descriptions)
        if examples is None:
            return cls(table, by_feature)
        opened, sae = TopExamples.open(examples, tokenizer), job_settings(descriptions)["sae"]
        if opened.metadata.get("sae") != sae:
            raise ContractError(
                f"expected top examples of the SAE {sae}, whose features {descriptions} describes, got those of "
                f"{opened.metadata.get('sae')} in {examples}; search for its own"
            )
        return cls(table, by_feature, opened)

    def __len__(self) -> int:
        return len(self._numbers)

    def search(self, query: str, start: int, count: int) -> dict[str, Any]:
        """Features whose number, label or descriptions hold every word of a query.

        Args:
            query: words; a number finds the feature of that number first.
            start: how many to leave out at the beginning.
            count: at most so many.

        Returns:
            ``total``, and ``features`` as the report's cards have them.
        """
        words = query.lower().split()
        wanted = [i for i, text in enumerate(self._texts) if all(word in text for word in words)]
        if query.strip().isdecimal():
            wanted.sort(key=lambda i: self._numbers[i] != int(query))
        cards = [self._card(self._numbers[i]) for i in wanted[start : start + count]]
        return dict(total=len(wanted), features=cards)

    def _text(self, feature: int) -> str:
        descriptions = (row["text"] for row in self._descriptions.get(feature, ()))
        return " ".join([str(feature), *self._labels.get(feature, ()), *descriptions]).lower()

    def _card(self, feature: int) -> dict[str, Any]:
        contexts = []
        if self._examples is not None:
            try:
                rows = self._examples.get(feature, _EXAMPLES)
            except InterpToolkitError:  # an SAE of fewer features
                rows = pd.DataFrame(columns=["tokens", "activations"])
            contexts = [
                dict(tokens=list(tokens), values=[float(value) for value in activations])
                for tokens, activations in rows[["tokens", "activations"]].itertuples(index=False)
            ]
        label = ", ".join(self._labels.get(feature, ())) or None
        descriptions = self._descriptions.get(feature, [])
        return dict(feature=feature, label=label, scores=[], descriptions=descriptions, contexts=contexts)
