"""Reading back: a description is put into a prompt, read, and compared with the vector that it describes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp_toolkit.activations import read_token_vectors
from interp_toolkit.adapters import Adapter
from interp_toolkit.chat import has_chat_template
from interp_toolkit.confidence import READ_BACK
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.models import as_hooked_model, model_facts
from interp_toolkit.pairs.reworded import topic_positions
from interp_toolkit.pairs.topics import PROMPT
from interp_toolkit.reconstruct import require_one_each, site_cosine
from interp_toolkit.sites import Place, PlaceLike, parse_place
from interp_toolkit.spans import find_spans
from interp_toolkit.torch_defaults import plain_defaults


@plain_defaults()
@torch.no_grad()
def read_back(
    model: Any,
    adapter: Adapter,
    vectors: Float[Tensor, "n width"],
    descriptions: Sequence[str],
    site: PlaceLike | None = None,
) -> dict[str, np.ndarray]:
    """Compare vectors with those that their descriptions give when the model reads them.

    Each description stands in the prompt ``Tell me about {description}.``, which is read at the description's last
    token and at the last of all, as the vector was: at the same place, less the same mean. Of the adapter's soft
    tokens the comparison leaves out what the adapter does not look at, such as the wording of a prompt. Nothing is
    trained for it.

    Args:
        model: the hooked model.
        adapter: with its contract.
        vectors: as the adapter takes them: centred, and with zeros for the sites of a stack that were not read.
        descriptions: one per vector.
        site: where the vectors were read, one of the places of the adapter's contract; by default its first.

    Returns:
        arrays of cosines [n], NaN for an empty description: ``cosine_title`` and ``cosine_last`` of the vector with
        that of each token, averaged over sites; ``soft_cosine_title`` and ``soft_cosine_last`` of the soft tokens that
        the adapter makes of these vectors, averaged over soft tokens.

    Raises:
        ContractError: an adapter for another model.
        InterpToolkitError: counts that differ, a description beyond the model's context, or a place that the adapter
            was not trained on.

    Example:
        >>> read_back(model, adapter, vectors, [row.description for row in self_explain(vectors, adapter=adapter)])
    """
    model = as_hooked_model(model)
    contract = adapter.require_contract(model_facts(model))
    require_one_each(descriptions, vectors, adapter.config.width)
    place = contract.require_site() if site is None else parse_place(site)
    contract.check_site(place)
    reading = contract.reading_place(place)
    known = [i for i, text in enumerate(descriptions) if text.strip()]
    out = {name: np.full(len(vectors), np.nan) for name in READ_BACK}
    if not known:
        return out
    unique = list(dict.fromkeys(descriptions[i].strip() for i in known))
    raw = _read(model, unique, place, contract.chat)
    centred = raw if reading is None or reading.mean is None else raw - reading.mean
    number = {text: i for i, text in enumerate(unique)}
    rows = torch.tensor([number[descriptions[i].strip()] for i in known])
    described = vectors.cpu().float()[torch.tensor(known)]
    if any(parameter.device.type != "cpu" for parameter in adapter.parameters()):
        adapter = copy.deepcopy(adapter).cpu()  # the caller's stays where it is
    soft_tokens = _soft_tokens(adapter, described)
    for token, of_token in zip(("title", "last"), centred):
        again = contract.filled(of_token[rows], place)
        out[f"cosine_{token}"][known] = site_cosine(described, again, again.shape[1] // contract.d_model).numpy()
        cosines = torch.cosine_similarity(soft_tokens, _soft_tokens(adapter, again), dim=-1)
        out[f"soft_cosine_{token}"][known] = cosines.mean(1).numpy()
    return out


def _read(model: Any, texts: Sequence[str], place: Place, chat: bool | None) -> Tensor:
    """Raw vectors of texts in their prompts, at each text's last token and at the last of all: [2, texts, width]."""
    chat = has_chat_template(model.tokenizer) if chat is None else chat
    spans, failed = find_spans(model.tokenizer, [PROMPT.format(title=text) for text in texts], "content", chat)
    if failed:
        number, reason = next(iter(failed.items()))
        raise InterpToolkitError(f"the description {texts[number]!r:.80} cannot be read in a prompt: {reason}")
    positions = [
        [topic_positions(model.tokenizer, span, text, [token])[0] for token in ("title", "last")]
        for span, text in zip(spans, texts)
    ]
    raw = read_token_vectors(model, [span.ids for span in spans], place, positions)
    return raw.unflatten(0, (-1, 2)).transpose(0, 1)


def _soft_tokens(adapter: Adapter, vectors: Tensor) -> Tensor:
    """Soft tokens [n, tokens, d_model]."""
    return adapter(vectors).view(len(vectors), adapter.config.tokens, -1).float()
