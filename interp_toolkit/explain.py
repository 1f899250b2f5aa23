"""`self_explain`: hidden states in, the model's own words for them out, with evidence."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float
from torch import Tensor

from interp_toolkit.activations import Activations, Positions
from interp_toolkit.adapters import Adapter
from interp_toolkit.centering import Means, OnMismatch
from interp_toolkit.chat import Prompt, has_chat_template
from interp_toolkit.contract import ModelFacts
from interp_toolkit.deprecation import gathered_arguments, renamed_arguments, warn_renamed
from interp_toolkit.describing import Prepared, describe, on_still_model
from interp_toolkit.engines import (
    DEFAULT_MODEL,
    Engine,
    LocalEngine,
    as_engine,
    as_toolkit_server,
    require_same_model,
)
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.explanations import Explanations
from interp_toolkit.inputs import from_activations, from_prompts, from_vectors, split_inputs
from interp_toolkit.remote import explain_remotely
from interp_toolkit.runtime import Sampling
from interp_toolkit.shipped import default_adapter, find_adapter
from interp_toolkit.sites import PlaceLike, SiteStack
from interp_toolkit.soft_prompt import SoftPrompt
from interp_toolkit.torch_defaults import plain_defaults

_GREEDY = Sampling()
_NULL_VECTOR = "null vector"
F = TypeVar("F", bound=Callable[..., Any])


def _accepts_soft_prompt(function: F) -> F:
    """Take the argument ``soft_prompt`` of version 0.1, which now belongs to the adapter."""

    @functools.wraps(function)
    def call(inputs: Any, **arguments: Any) -> Explanations:
        soft_prompt = arguments.pop("soft_prompt", None)
        if soft_prompt is None:
            return function(inputs, **arguments)
        warn_renamed("self_explain(soft_prompt=...)", "adapter=adapter.with_soft_prompt(...)", stacklevel=5)
        if not isinstance(soft_prompt, SoftPrompt):
            raise InterpToolkitError(
                f"expected a SoftPrompt, got {type(soft_prompt).__name__}; see SoftPrompt.for_chat"
            )
        arguments["model"] = engine = as_engine(arguments.get("model", DEFAULT_MODEL))
        inputs, vectors = split_inputs(inputs)
        adapter = choose_adapter(arguments.get("adapter"), engine.facts, vectors, arguments.get("sites"))
        arguments["adapter"] = adapter.with_soft_prompt(soft_prompt)
        return function(inputs, **arguments)

    return call  # type: ignore[return-value]


def _on_still_model(function: F) -> F:
    """Look at a hooked model, and at what else runs, once in a call: each takes a time that can be felt.

    A server that has model and adapters gets the call as it is.
    """

    @functools.wraps(function)
    def call(inputs: Any, *, model: Any = DEFAULT_MODEL, **arguments: Any) -> Explanations:
        if (server := as_toolkit_server(model)) is not None:
            return explain_remotely(server, inputs, **arguments)
        engine = as_engine(model)
        with on_still_model(engine):
            return function(inputs, model=engine, **arguments)

    return call  # type: ignore[return-value]


@renamed_arguments(
    raw=("centered", lambda raw: not raw),
    null="include_null",
    means="center",
    any_site=("on_mismatch", lambda any_site: "warn" if any_site else "error"),
)
@gathered_arguments(
    "sampling",
    Sampling,
    samples="n",
    temperature="temperature",
    top_p="top_p",
    seed="seed",
    max_new_tokens="max_new_tokens",
    scales="scales",
)
@_accepts_soft_prompt
@_on_still_model
@plain_defaults()
def self_explain(
    inputs: Prompt | Iterable[Prompt] | Float[Tensor, "*n d_model"] | np.ndarray | Activations,
    *,
    model: Any = "smollm2-135m",
    adapter: Adapter | str | Path | None = None,
    sites: PlaceLike | None = None,
    positions: Positions = "last",
    sampling: Sampling = _GREEDY,
    centered: bool = True,
    center: Means | None = None,
    include_null: bool = False,
    on_mismatch: OnMismatch = "error",
    chat: bool | None = None,
    progress: bool = False,
) -> Explanations:
    """Let a model describe its own hidden states in words.

    Every vector is centered, mapped by the adapter and written over the slots of the soft prompt, and the model
    continues the text. Every description comes with its evidence. Fluent text alone proves nothing, since an adapter's
    bias alone produces fluent text.

    Args:
        inputs: prompts, whose residual streams are read (texts count as user turns), or vectors themselves (an array,
            or a list of vectors), or `Activations`, which are raw and say where they were read.
        model: a hooked model, or what `load_model` takes; the address of a server of ``interp-toolkit serve``, which
            describes by its own adapters; for vectors also that of a vLLM server, or another
            `interp_toolkit.engines.Engine`. The default model is loaded once per process.
        adapter: an `Adapter`, a path, a hub id, or the name of a shipped one. By default the best one shipped for the
            model that was trained on the sites that are read, or that takes vectors of this width.
        sites: where to read prompts; by default where the adapter was trained. A list is a grid: every site is read on
            its own. A `SiteStack` is read as one vector, by an adapter that was trained on that stack. A site that is
            not the adapter's needs its mean in ``center``, or ``on_mismatch="warn"``. With vectors, which of the
            places of an adapter's range they are from; by default the deepest that fits their width.
        positions: which tokens of a prompt, from its end where negative; ``"last"``, ``"all"``, or ``"content"`` for a
            text's own, without the chat template's; see `read_activations`.
        sampling: how many descriptions per vector, and how they are sampled; by default one, greedily.
        centered: whether vectors are centered already, or directions. With False they are raw residual streams, and
            the adapter's mean is subtracted.
        center: the mean to subtract from what is read, by site; by default the adapter's own, at its own site.
        include_null: whether to describe the null vector too, which shows what the adapter says without a vector.
        on_mismatch: ``"error"`` to refuse a site that the adapter was not trained on and that has no mean in
            ``center``; ``"warn"`` to warn and subtract nothing there.
        chat: whether texts are user turns in the chat template (True) or plain text (False). By default as the prompts
            that the adapter was trained on; where it does not say, user turns if the model has a chat template.
        progress: whether to show bars.

    Returns:
        `Explanations`, one row per vector, scale and sample. ``above_threshold`` is None where the adapter's threshold
        does not apply, see `EvidenceThreshold.applies`.

    Raises:
        ContractError: an adapter for another model, width or site.
        InterpToolkitError: an empty or missing prompt, a layer or position that does not exist, a vector that is zero
            or not finite, or an argument that would have no effect on these inputs.

    Example:
        >>> self_explain("Tell me about baseball.")[0].description
        >>> self_explain(vectors, model=model, adapter="my-adapter", sampling=Sampling(n=6)).to_df()
    """
    engine = as_engine(model)
    prepared = prepare(
        engine,
        inputs,
        adapter=adapter,
        sites=sites,
        positions=positions,
        centered=centered,
        center=center,
        on_mismatch=on_mismatch,
        chat=chat,
        progress=progress,
    )
    return describe(engine, prepared, sampling, include_null, progress)


def prepare(
    engine: Engine,
    inputs: Any,
    *,
    adapter: Adapter | str | Path | None = None,
    sites: PlaceLike | None = None,
    positions: Positions = "last",
    centered: bool = True,
    center: Means | None = None,
    on_mismatch: OnMismatch = "error",
    chat: bool | None = None,
    progress: bool = False,
) -> Prepared:
    """Read and center what `self_explain` is to describe, with the adapter that it is described by.

    Args:
        engine: that runs the model.
        inputs: as `self_explain` takes them, and so all below.
        adapter: an `Adapter`, or where to find it.
        sites: where to read prompts.
        positions: which tokens of a prompt.
        centered: whether vectors are centered already.
        center: means by site.
        on_mismatch: what to do at a site that the adapter was not trained on.
        chat: whether texts are user turns.
        progress: whether to show a bar.

    Raises:
        InterpToolkitError: as `self_explain`.
    """
    inputs, vectors = split_inputs(inputs)
    facts = engine.facts  # a property that looks through the model's hooks and weights
    adapter = choose_adapter(adapter, facts, vectors, sites)
    contract = adapter.require_contract(facts)
    _require_ability(engine, contract.require_soft_prompt())

    width = adapter.config.width
    arguments_of_reading = dict(
        sites=sites is not None,
        positions=not (isinstance(positions, str) and positions == "last"),
        chat=chat is not None,
    )
    warns = on_mismatch == "warn"
    as_in_training = True
    if isinstance(inputs, Activations):
        _refuse("activations are raw, and say where they were read", **arguments_of_reading, centered=not centered)
        described = from_activations(inputs, contract, width, center=center, on_mismatch=on_mismatch)
    elif vectors is not None:
        arguments_of_reading["sites"] = sites is not None and not contract.more
        _refuse("vectors are taken as they are", **arguments_of_reading, center=center is not None, on_mismatch=warns)
        described = from_vectors(vectors, contract, width, centered, sites)
    else:
        _refuse("what is read from prompts is raw", centered=not centered)
        _refuse(
            "no sites (--layer) are given, so prompts are read at the adapter's own",
            **{"on_mismatch (--any-layer)": warns and sites is None},
        )
        if not isinstance(engine, LocalEngine):
            raise InterpToolkitError(
                f"expected vectors, since {type(engine).__name__} does not read the activations of prompts here; read "
                f"them with read_activations and a hooked model, or pass that as model=... (VllmEngine has a "
                f"read_activations of its own)"
            )
        usual_chat = has_chat_template(engine.model.tokenizer) if contract.chat is None else contract.chat
        # An adapter for a range of places that does not say which was trained on both.
        as_in_training = chat in (None, usual_chat) or (contract.chat is None and bool(contract.more))
        described = from_prompts(
            engine.model,
            inputs,
            contract,
            width,
            sites=sites,
            positions=positions,
            chat=usual_chat if chat is None else chat,
            center=center,
            on_mismatch=on_mismatch,
            progress=progress,
        )
    require_same_model(engine, adapter)
    return Prepared(adapter, described, as_in_training)


def choose_adapter(
    adapter: Adapter | str | Path | None,
    facts: ModelFacts,
    vectors: Tensor | None,
    sites: PlaceLike | None,
) -> Adapter:
    """The adapter that was passed, or the shipped one: by the width of vectors, by where prompts are read.

    Args:
        adapter: as of `self_explain`.
        facts: of the model.
        vectors: of which the width counts; None for prompts.
        sites: where prompts are read.

    Raises:
        InterpToolkitError: no adapter has that name, or none is shipped for the model.
    """
    if not isinstance(adapter, (Adapter, str, Path, NoneType)):
        raise InterpToolkitError(f"expected an Adapter, a path, a hub id or a name, got {type(adapter).__name__}")
    if isinstance(adapter, Adapter):
        return adapter
    if adapter is not None:
        return find_adapter(str(adapter))
    if vectors is not None:
        width = vectors.shape[-1] if vectors.ndim else 0
        return default_adapter(facts, width // facts.d_model if width and width % facts.d_model == 0 else 1)
    if sites is None:
        return default_adapter(facts)
    count = len(sites.sites) if isinstance(sites, SiteStack) else 1
    return default_adapter(facts, count, places=sites)


def _require_ability(engine: Engine, soft_prompt: SoftPrompt) -> None:
    """Refuse an engine that cannot write where the soft prompt says."""
    if not soft_prompt.at_embedding and "any_site" not in engine.capabilities:
        raise InterpToolkitError(
            f"expected an engine that writes soft tokens at {soft_prompt.site} (mode {soft_prompt.mode!r}), and "
            f"{type(engine).__name__} replaces embeddings only; use a hooked model, or an adapter whose soft prompt "
            f"is at the embedding"
        )


def _refuse(why: str, **passed: bool) -> None:
    """Refuse arguments that would have no effect."""
    if names := [name for name, is_passed in passed.items() if is_passed]:
        raise InterpToolkitError(f"{', '.join(names)} would have no effect: {why}; leave it out")
