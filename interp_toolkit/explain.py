"""`self_explain`: hidden states in, the model's own words for them out, with evidence."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp_toolkit.activations import Activations, Positions, read_activations, stack_sites
from interp_toolkit.adapters import Adapter
from interp_toolkit.chat import Prompt, has_chat_template, list_prompts
from interp_toolkit.contract import EvidenceThreshold, ModelFacts
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.explanations import Explanation, Explanations
from interp_toolkit.inputs import Means, centring, given_vectors, prompt_title, read_vectors, vectors_among
from interp_toolkit.models import as_hooked_model, backend_of, model_facts
from interp_toolkit.runtime import PromptRun, generate
from interp_toolkit.settings import whole_number
from interp_toolkit.shipped import default_adapter, find_adapter
from interp_toolkit.sites import PlaceLike, SiteStack
from interp_toolkit.soft_prompt import SoftPrompt
from interp_toolkit.torch_defaults import plain_defaults

# Sampling temperature where several samples are asked for; the paper's (arXiv 2602.10352, section 4).
_TEMPERATURE = 0.7


@plain_defaults()
def self_explain(
    inputs: Prompt | Iterable[Prompt] | Float[Tensor, "*n d_model"] | Activations,
    *,
    model: Any = "smollm2-135m",
    adapter: Adapter | str | Path | None = None,
    sites: PlaceLike | None = None,
    positions: Positions = "last",
    samples: int | np.integer = 1,
    temperature: float | None = None,
    top_p: float = 1.0,
    seed: int | np.integer = 0,
    scales: float | Sequence[float] | np.ndarray = (1.0,),
    max_new_tokens: int | np.integer = EvidenceThreshold.MAX_NEW_TOKENS,
    raw: bool = False,
    null: bool = False,
    any_site: bool = False,
    means: Means | None = None,
    soft_prompt: SoftPrompt | None = None,
    chat: bool | None = None,
    progress: bool = False,
) -> Explanations:
    """What the model says its own hidden states mean.

    Each vector is centred, moved by the adapter, written over the slots of the soft prompt, and the model goes on
    writing. Each description comes with its evidence: without it, fluent text proves nothing, since an adapter's bias
    alone writes fluent text about nothing.

    Args:
        inputs: prompts, whose residual streams are read (texts count as user turns), or vectors themselves (an array,
            or a list of vectors), or `Activations`, which are raw and say where they were read.
        model: a hooked model, or what `load_model` takes.
        adapter: an `Adapter`, a path, a hub id, or the name of a shipped one; by default the best one shipped for the
            model and what is asked of it: a single site, or vectors of one, take an adapter of one site.
        sites: where to read prompts; by default where the adapter was trained. Several make a grid over layers. One
            that is not the adapter's needs its mean in ``means``, or ``any_site=True``. An adapter of several sites
            reads them together, and no others.
        positions: which tokens of a prompt, from its end where negative; ``"last"`` or ``"all"``; see
            `read_activations`.
        samples: descriptions a vector.
        temperature: of the sampling; by default 0 (greedy) for one sample and 0.7 for several.
        top_p: sample among the most probable tokens that together have this probability.
        seed: of the sampling, at least 0.
        scales: factors on the vector in the adapter; each is tried.
        max_new_tokens: longest description, in tokens.
        raw: whether given vectors are raw residual streams, from which the adapter's mean is to be taken off; by
            default they are taken as directions or as centred already.
        null: also ask about the null vector, which shows what the adapter says about nothing.
        any_site: allow sites that the adapter was not trained on without their mean, which then outweighs what tells
            vectors apart.
        means: what to take off the vectors that are read, by site; at the adapter's own site by default its own.
        soft_prompt: by default the adapter's own.
        chat: whether texts are user turns in the chat template (True) or plain text (False); by default as those that
            the adapter was trained on, and where it does not say, where the model has a chat template.
        progress: whether to show bars.

    Returns:
        `Explanations`, one row per vector, scale and sample. Whether a description is a reading is left open where the
            adapter's threshold says nothing of it, see `EvidenceThreshold.applies`.

    Raises:
        ContractError: an adapter for another model, width or site.
        InterpToolkitError: an empty or missing prompt, a layer or position that does not exist, a vector that is zero
            or not finite, a setting out of its range, or one that would have no effect on these inputs.

    Example:
        >>> self_explain("Tell me about baseball.")[0].description
        >>> self_explain(vectors, model=model, adapter="my-adapter", samples=6, seed=0).to_df()
    """
    model = as_hooked_model(model)
    backend = backend_of(model)
    facts = model_facts(model)
    inputs, vectors = (inputs, inputs.vectors) if isinstance(inputs, Activations) else vectors_among(inputs)
    if not isinstance(adapter, (Adapter, str, Path, NoneType)):
        raise InterpToolkitError(f"expected an Adapter, a path, a hub id or a name, got {type(adapter).__name__}")
    if not isinstance(soft_prompt, (SoftPrompt, NoneType)):
        raise InterpToolkitError(f"expected a SoftPrompt, got {type(soft_prompt).__name__}; see SoftPrompt.for_chat")
    if not isinstance(adapter, Adapter):
        adapter = _default(facts, vectors, sites) if adapter is None else find_adapter(str(adapter))
    contract = adapter.require_contract(facts)
    prompt = soft_prompt or contract.require_soft_prompt()
    factors: list[Any] = np.atleast_1d(scales).tolist()
    if not factors or not all(isinstance(x, (int, float)) and math.isfinite(x) for x in factors):
        raise InterpToolkitError(f"expected at least one scale, each a finite number, got {factors or 'none'}")
    samples, max_new_tokens = whole_number(samples, "samples"), whole_number(max_new_tokens, "max_new_tokens")
    seed = whole_number(seed, "seed", least=0)
    if temperature is None:
        temperature = 0.0 if samples == 1 else _TEMPERATURE
    if not isinstance(temperature, (int, float, np.number)) or not 0 <= temperature < math.inf:
        raise InterpToolkitError(f"expected a temperature of at least 0, got {temperature!r}")
    _refuse("at temperature 0 the most probable token is taken", top_p=temperature == 0 and top_p != 1)

    usual_chat = has_chat_template(model.tokenizer) if contract.chat is None else contract.chat
    prompts, read = [], None
    at = dict(
        sites=sites is not None,
        positions=not (isinstance(positions, str) and positions == "last"),
        chat=chat is not None,
    )
    if isinstance(inputs, Activations):
        _refuse("activations are raw, and say where they were read", **at, raw=raw)
        asked = read_vectors(inputs, contract, adapter.config.width, means=means, any_site=any_site)
    elif vectors is not None:
        _refuse("vectors are taken as they are", **at, means=means is not None, any_site=any_site)
        asked = given_vectors(vectors, contract, adapter.config.width, raw)
    else:
        _refuse("what is read from prompts is raw", raw=raw)
        _refuse(
            "no sites (--layer) are given, so prompts are read at the adapter's own",
            **{"any_site (--any-layer)": any_site and sites is None},
        )
        prompts, chosen = list_prompts(inputs), contract.places(sites)
        centring(chosen, contract, means, any_site)  # before any work
        each = [site for place in chosen for site in place.sites]
        as_chat = usual_chat if chat is None else chat
        read = read_activations(model, prompts, each, positions, chat=as_chat, progress=progress)
        if isinstance(chosen[0], SiteStack):
            read = stack_sites(read, chosen[0])
        asked = read_vectors(
            read,
            contract,
            adapter.config.width,
            means=means,
            any_site=any_site,
            source=lambda i: prompt_title(prompts[i]),
        )
    if read is None:
        row_ids = [hashlib.sha256(row.tobytes()).hexdigest() for row in asked.values.numpy()]
    else:  # what was read, not its rounding
        places = zip(read.table["prompt"], read.table["site"], read.table["position"])
        row_ids = [repr((prompts[i], site, position)) for i, site, position in places]
    run = PromptRun(model, prompt)
    adapter = adapter.to(backend.device)
    with torch.no_grad():
        values = asked.values.to(backend.device)
        nothing = adapter.null()[None]
        told = [adapter(values, scale) for scale in factors]
        # Rows in the order of the table: the scales of a vector side by side.
        soft_tokens = torch.stack(told, 1).flatten(0, 1) if len(values) else nothing[:0]
    soft_tokens = torch.cat([soft_tokens, nothing]) if null else soft_tokens
    texts = generate(
        run,
        soft_tokens,
        null=nothing[0],
        samples=samples,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        row_ids=[f"{row_id} {scale}".encode() for row_id in row_ids for scale in factors] + [b"null"] * null,
        max_new_tokens=max_new_tokens,
        progress=progress,
    )
    places = [
        (source, site, position, scale, as_trained)
        for source, site, position, as_trained in zip(asked.sources, asked.sites, asked.positions, asked.as_trained)
        for scale in factors
    ] + [("null vector", "", -1, 1.0, True)] * null
    rows = []
    for (source, site, position, scale, as_trained), written in zip(places, texts):
        applies = contract.threshold is not None and contract.threshold.applies(
            as_trained=as_trained,
            scale=scale,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            other_soft_prompt=soft_prompt is not None or chat not in (None, usual_chat),
        )
        for i, text in enumerate(written):
            # NaN, of an empty description, reaches no threshold.
            reading = text.evidence >= contract.threshold.value if applies and contract.threshold else None
            rows.append(Explanation(source, site, position, i, text.text, text.log_prob, text.evidence, reading, scale))
    return Explanations(rows)


def _default(facts: ModelFacts, vectors: Tensor | None, sites: PlaceLike | None) -> Adapter:
    """The shipped adapter for what is asked: for vectors by their width, for a grid of sites one that reads one."""
    if vectors is not None:
        wide = vectors.shape[-1] if vectors.ndim else 0
        return default_adapter(facts, wide // facts.d_model if wide and wide % facts.d_model == 0 else 1)
    if sites is None:
        return default_adapter(facts)
    return default_adapter(facts, len(sites.sites) if isinstance(sites, SiteStack) else 1)


def _refuse(why: str, **given: bool) -> None:
    """Refuse arguments that would have no effect."""
    if names := [name for name, used in given.items() if used]:
        raise InterpToolkitError(f"{', '.join(names)} would have no effect: {why}; leave it out")
