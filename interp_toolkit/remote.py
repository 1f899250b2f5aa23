"""`self_explain` by a server: what is asked goes there, and comes back as the same `Explanations`."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from interp_toolkit.activations import Activations
from interp_toolkit.chat import list_prompts
from interp_toolkit.engines.toolkit_server import ToolkitServer
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.explanations import Explanation, Explanations
from interp_toolkit.inputs import split_inputs
from interp_toolkit.positions import parse_positions
from interp_toolkit.runtime import Sampling
from interp_toolkit.sites import SiteStack, parse_place, parse_sites

# Prompts and vectors per request: small enough that several requests share the server's batches.
_PROMPTS, _VECTORS = 16, 256
_GREEDY = Sampling()
_NUMBERS = ("log_prob", "evidence")
_FIELDS = ("sample", "description", "log_prob", "evidence", "above_threshold", "scale", "confidence")


def explain_remotely(
    server: ToolkitServer,
    inputs: Any,
    *,
    adapter: Any = None,
    sites: Any = None,
    positions: Any = "last",
    sampling: Sampling = _GREEDY,
    centered: bool = True,
    center: Any = None,
    include_null: bool = False,
    on_mismatch: str = "error",
    chat: bool | None = None,
    progress: bool = False,
) -> Explanations:
    """Describe prompts or vectors by a server, as `self_explain` does here.

    Args:
        server: that has the model.
        inputs: prompts (texts or messages), or vectors; and the rest as of `self_explain`.
        adapter: name of one of the server's; by default the server's choice.
        sites: where to read.
        positions: which tokens; names or numbers.
        sampling: of the descriptions.
        centered: whether vectors are centered already.
        center: none; the server has its adapters' means.
        include_null: whether to describe the null vector too.
        on_mismatch: what to do at a site that the adapter was not trained on.
        chat: whether texts are user turns.
        progress: whether to show a bar.

    Raises:
        InterpToolkitError: what a server cannot do, or refuses.
    """
    inputs, vectors = split_inputs(inputs)
    if center is not None or isinstance(inputs, Activations) or not isinstance(adapter, (str, type(None))):
        raise InterpToolkitError(
            f"expected prompts or vectors, an adapter's name and no center= for the server at {server.url}, which "
            f"describes by its own adapters and means; load the model here for anything else"
        )
    shared: dict[str, Any] = dict(adapter=adapter, include_null=include_null, sampling=_sampling(sampling))
    if vectors is not None:
        site = None if sites is None else str(parse_place(sites))
        rows = torch.atleast_2d(vectors.detach().float().cpu())
        bodies = [
            shared | dict(safetensors=_encoded(block), site=site, centered=centered) for block in rows.split(_VECTORS)
        ]
        streams, starts = server.describe(bodies, progress), range(0, len(rows), _VECTORS)
    else:
        prompts = [_prompt(prompt) for prompt in list_prompts(inputs)]
        settings = dict(sites=_sites(sites), positions=_positions(positions), chat=chat, on_mismatch=on_mismatch)
        bodies = [shared | settings | dict(texts=prompts[i : i + _PROMPTS]) for i in range(0, len(prompts), _PROMPTS)]
        streams, starts = server.explain(bodies, progress), range(0, len(prompts), _PROMPTS)
    places = {site: i for i, site in enumerate(streams[0][0].get("sites", ()))} if streams else {}
    cells = []
    for start, lines in zip(starts, streams):
        for line in lines[1:-1]:
            # A server gives a token's sites together; here a site's tokens stand together.
            order = (start + line["text"], places.get(line["site"], 0), line["cell"])
            source = line["source"] if vectors is None else f"vector {start + line['text']}"
            cells.append((order, source, line))
    rows_of_table = [
        _explanation(source, line["site"], line["position"], line["token"], row)
        for _, source, line in sorted(cells, key=lambda cell: cell[0])
        for row in line["descriptions"]
    ]
    if include_null and streams:
        rows_of_table += [_explanation("null vector", "", -1, "", row) for row in streams[0][0]["null"]]
    return Explanations(rows_of_table)


def _explanation(source: str, site: str, position: int, token: str, row: Mapping[str, Any]) -> Explanation:
    values: dict[str, Any] = {name: row[name] for name in _FIELDS}
    numbers: dict[str, Any] = {name: math.nan if values[name] is None else values[name] for name in _NUMBERS}
    return Explanation(source=source, site=site, position=position, token=token, **(values | numbers))


def _sampling(sampling: Sampling) -> dict[str, Any]:
    return dict(
        n=int(sampling.n),
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_new_tokens=int(sampling.max_new_tokens),
        seed=int(sampling.seed),
        scales=list(sampling.scale_factors),
    )


def _encoded(vectors: torch.Tensor) -> str:
    return base64.b64encode(save({"vectors": vectors.contiguous()})).decode()


def _prompt(prompt: Any) -> Any:
    if isinstance(prompt, str):
        return prompt
    items = list(prompt) if isinstance(prompt, (list, tuple)) else []
    if items and all(isinstance(item, Mapping) for item in items):
        return [dict(item) for item in items]
    raise InterpToolkitError(f"expected texts or messages for a server, got {prompt!r:.80}")


def _sites(sites: Any) -> list[str] | None:
    if sites is None:
        return None
    if isinstance(sites, SiteStack) or (isinstance(sites, str) and "+" in sites):
        return [str(parse_place(sites))]
    return [str(site) for site in parse_sites(sites)]


def _positions(positions: Any) -> Any:
    chosen = parse_positions(positions)
    if isinstance(chosen, slice) or (isinstance(chosen, list) and isinstance(chosen[0], (bool, np.bool_))):
        raise InterpToolkitError(
            "expected positions 'last', 'all', 'content' or numbers for a server, got a slice or mask"
        )
    return chosen
