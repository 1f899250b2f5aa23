"""`self_explain`: hidden states in, the model's own words for them out, with evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp_toolkit.activations import Positions, read_activations, stack_sites
from interp_toolkit.adapters import Adapter
from interp_toolkit.chat import Prompt, has_chat_template, list_prompts
from interp_toolkit.contract import Contract, ModelFacts
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.explanations import Explanation, Explanations
from interp_toolkit.models import backend_of, load_model, model_facts
from interp_toolkit.runtime import PromptRun, evidence, generate
from interp_toolkit.shipped import default_adapter, find_adapter
from interp_toolkit.sites import Place, PlaceLike, Site, SiteStack
from interp_toolkit.soft_prompt import SoftPrompt

# Sampling temperature where several samples are asked for; the paper's (arXiv 2602.10352, section 4).
_TEMPERATURE = 0.7


@dataclass(frozen=True)
class _Vectors:
    """Centred vectors with where each came from."""

    values: Tensor
    sources: list[str]
    sites: list[str]
    positions: list[int]


def self_explain(
    inputs: Prompt | Sequence[Prompt] | Float[Tensor, "*n d_model"],
    *,
    model: Any = "smollm2-135m",
    adapter: Adapter | str | None = None,
    sites: PlaceLike | None = None,
    positions: Positions = "last",
    samples: int = 1,
    temperature: float | None = None,
    top_p: float = 1.0,
    seed: int = 0,
    scales: Sequence[float] = (1.0,),
    max_new_tokens: int = 24,
    raw: bool = False,
    null: bool = False,
    any_site: bool = False,
    means: Mapping[Site, Tensor] | None = None,
    soft_prompt: SoftPrompt | None = None,
    chat: bool | None = None,
    progress: bool = False,
) -> Explanations:
    """What the model says its own hidden states mean.

    Each vector is centred, moved by the adapter, written over the slots of the soft prompt, and the model goes on
    writing. Each description comes with its evidence: without it, fluent text proves nothing, since an adapter's bias
    alone writes fluent text about nothing.

    Args:
        inputs: prompts, whose residual streams are read (texts count as user turns), or vectors themselves.
        model: a hooked model, or what `load_model` takes.
        adapter: an `Adapter`, a path, a hub id, or the name of a shipped one; by default the best one shipped for the
            model and what is asked of it: a single site, or vectors of one, take an adapter of one site.
        sites: where to read prompts; by default where the adapter was trained. Several make a grid over layers. A
            single other one is taken for a mistake, unless ``any_site=True``. An adapter of several sites reads them
            together, and no others.
        positions: which tokens of a prompt, from its end where negative; ``"last"`` or ``"all"``.
        samples: descriptions a vector.
        temperature: of the sampling; by default 0 (greedy) for one sample and 0.7 for several.
        top_p: sample among the most probable tokens that together have this probability.
        seed: of the sampling.
        scales: factors on the vector in the adapter; each is tried.
        max_new_tokens: longest description, in tokens.
        raw: whether given vectors are raw residual streams, from which the adapter's mean is to be taken off; by
            default they are taken as directions or as centred already.
        null: also ask about the null vector, which shows what the adapter says about nothing.
        any_site: allow a single site that the adapter was not trained on.
        means: what to take off vectors read at other sites than the adapter's, by site; nothing where a site is not
            named, and then the mean direction of that site speaks loudest.
        soft_prompt: by default the adapter's own.
        chat: whether texts are user turns in the chat template (True) or plain text (False); by default as those that
            the adapter was trained on, and where it does not say, where the model has a chat template.
        progress: whether to show bars.

    Returns:
        `Explanations`, one row a vector, scale and sample.

    Raises:
        ContractError: an adapter for another model, width or site.
        InterpToolkitError: an empty prompt, a layer or position that does not exist, a vector that is zero or not
            finite, a setting out of its range.

    Example:
        >>> self_explain("Tell me about baseball.")[0].description
        >>> self_explain(vectors, model=model, adapter="my-adapter", samples=6, seed=0).to_df()
    """
    model = load_model(model)
    backend = backend_of(model)
    facts = model_facts(model)
    if not isinstance(adapter, Adapter):
        adapter = _default(facts, inputs, sites) if adapter is None else find_adapter(adapter)
    contract = adapter.contract
    if contract is None:
        raise InterpToolkitError("the adapter has no contract, so it has not been trained; see train_adapter")
    contract.check_model(facts)
    prompt = soft_prompt or contract.soft_prompt
    if prompt is None:
        raise InterpToolkitError("the adapter's file names no soft prompt; pass soft_prompt=...")
    if not len(scales):
        raise InterpToolkitError("expected at least one scale, got none")

    usual_chat = has_chat_template(model.tokenizer) if contract.chat is None else contract.chat
    if isinstance(inputs, Tensor):
        if chat is not None:
            raise InterpToolkitError(f"chat={chat} says how texts are read, and vectors were given; leave it out")
        found = _given(inputs, contract, adapter.config.width, raw)
    else:
        chosen = _places(sites, contract, any_site)
        found = _read(
            model, inputs, chosen, positions, contract, means or {}, usual_chat if chat is None else chat, progress
        )
    run = PromptRun(model, prompt)
    adapter = adapter.to(backend.device)
    with torch.no_grad():
        values = found.values.to(backend.device)
        nothing = adapter.null()[None]
        told = [adapter(values, scale) for scale in scales]
        # Rows in the order of the table: the scales of a vector side by side.
        soft_tokens = torch.stack(told, 1).flatten(0, 1) if len(values) else nothing[:0]
    soft_tokens = torch.cat([soft_tokens, nothing]) if null else soft_tokens
    texts = generate(
        run,
        soft_tokens,
        samples=samples,
        temperature=(0.0 if samples == 1 else _TEMPERATURE) if temperature is None else temperature,
        top_p=top_p,
        seed=seed,
        max_new_tokens=max_new_tokens,
        progress=progress,
    )
    log_probs, told_by = (x.tolist() for x in evidence(run, nothing[0], [text for row in texts for text in row]))
    # The threshold is for the adapter's own soft prompt, and for texts read as it was trained on.
    usual = soft_prompt is None and chat in (None, usual_chat)
    threshold = contract.threshold.value if contract.threshold and usual else None
    measured = iter(zip(log_probs, told_by, _readings(told_by, threshold)))
    places = [
        (source, site, position, scale)
        for source, site, position in zip(found.sources, found.sites, found.positions)
        for scale in scales
    ] + [("null vector", "", -1, 1.0)] * null
    return Explanations(
        [
            Explanation(source, site, position, i, text.text, *next(measured), scale)
            for (source, site, position, scale), row in zip(places, texts)
            for i, text in enumerate(row)
        ]
    )


def _default(facts: ModelFacts, inputs: Any, sites: PlaceLike | None) -> Adapter:
    """The shipped adapter for what is asked: for vectors by their width, for a grid of sites one that reads one."""
    if isinstance(inputs, Tensor):
        wide = inputs.shape[-1] if inputs.ndim else 0
        return default_adapter(facts, wide // facts.d_model if wide and wide % facts.d_model == 0 else 1)
    if sites is None:
        return default_adapter(facts)
    return default_adapter(facts, len(sites.sites) if isinstance(sites, SiteStack) else 1)


def _given(vectors: Tensor, contract: Contract, width: int, raw: bool) -> _Vectors:
    values = vectors.detach().float().cpu()
    values = values[None] if values.ndim == 1 else values
    if values.ndim != 2 or values.shape[1] != width:
        raise InterpToolkitError(
            f"expected vectors of shape (n, {width}) or ({width},), got {tuple(vectors.shape)}; "
            f"the adapter is for {contract.model_id} at {contract.site or 'any site'}"
        )
    if raw and contract.mean is None:
        raise InterpToolkitError("raw=True asks for the adapter's mean to be taken off, and this adapter has none")
    values = contract.centre(values) if raw else values
    _require_directions(values)
    n = len(values)
    return _Vectors(values, [f"vector {i}" for i in range(n)], [""] * n, [-1] * n)


def _require_directions(values: Tensor) -> None:
    if len(bad := (~torch.isfinite(values).all(1)).nonzero().flatten()):
        raise InterpToolkitError(f"vector {bad[0].item()} holds NaN or infinity; leave it out")
    if len(bad := (values.abs().amax(1) == 0).nonzero().flatten() if len(values) else values):
        raise InterpToolkitError(
            f"vector {bad[0].item()} is zero and has no direction; to see what the adapter says about nothing, pass "
            f"null=True"
        )


def _places(sites: PlaceLike | None, contract: Contract, any_site: bool) -> Sequence[Place]:
    chosen = contract.places(sites)
    if len(chosen) == 1 and not any_site:
        contract.check_site(chosen[0])
    return chosen


def _read(
    model: Any,
    prompts: Any,
    sites: Sequence[Place],
    positions: Positions,
    contract: Contract,
    means: Mapping[Site, Tensor],
    chat: bool,
    progress: bool,
) -> _Vectors:
    each = [site for place in sites for site in place.sites]
    read = read_activations(model, prompts, each, positions, chat=chat, progress=progress)
    if isinstance(sites[0], SiteStack):
        read = stack_sites(read, sites[0])
    values = read.vectors
    for site in sites:
        rows = torch.tensor((read.table["site"] == str(site)).to_numpy())
        if isinstance(site, Site) and site in means:
            values[rows] = values[rows] - means[site].float().cpu()
        elif contract.site in (site, None):
            values[rows] = contract.centre(values[rows])
    listed = list_prompts(prompts)
    sources = [_title(listed[i]) for i in read.table["prompt"]]
    return _Vectors(values, sources, read.table["site"].tolist(), read.table["position"].tolist())


def _title(prompt: Prompt) -> str:
    if isinstance(prompt, str):
        return prompt
    last = prompt[-1]
    return last["content"] if isinstance(last, dict) else " ".join(map(str, prompt))


def _readings(evidence: Sequence[float], threshold: float | None) -> list[bool | None]:
    """Whether each reaches the threshold, NaN never does; None without one."""
    return [None if threshold is None else found >= threshold for found in evidence]
