"""`describe_difference`: what a fine-tune changed, in words, beside what no change and other fine-tunes give."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from interp_toolkit.activations import Activations, read_activations
from interp_toolkit.adapters import Adapter
from interp_toolkit.chat import has_chat_template, list_prompts
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.explain import choose_adapter, self_explain
from interp_toolkit.models import as_hooked_model, model_facts
from interp_toolkit.models.lora import is_lora, load_lora
from interp_toolkit.runtime import Sampling
from interp_toolkit.sites import Place
from interp_toolkit.torch_defaults import plain_defaults

COLUMNS = (
    "model", "what", "source", "position", "token", "size", "sample", "description", "evidence", "p_value", "control"
)  # fmt: skip
TUNED, BASE, PLACEBO = "tuned", "base", "placebo"
MEAN, LAST, TOKEN, HALVES = "mean of all tokens", "mean of last tokens", "token", "halves of the prompts"
_GREEDY = Sampling()
# Fewer prompts have no halves that say how much a mean varies.
_FEWEST = 4
_DTYPE = "float32"


@dataclass(frozen=True)
class _Reading:
    """What both models read, and how."""

    prompts: Sequence[str]
    place: Place
    chat: bool
    progress: bool

    def read(self, model: Any) -> Activations:
        """Of all tokens but those that all prompts begin with, which say the same so often."""
        activations = read_activations(model, self.prompts, self.place, "all", chat=self.chat, progress=self.progress)
        by_prompt: dict[int, list[str]] = {}
        for number, token in zip(activations.table["prompt"].tolist(), activations.table["token"].tolist()):
            by_prompt.setdefault(number, []).append(token)
        rows = list(by_prompt.values())
        shared = next((i for i, column in enumerate(zip(*rows)) if len(set(column)) > 1), min(map(len, rows)))
        keep = activations.table["position"].to_numpy() >= shared
        return Activations(activations.vectors[torch.tensor(keep)], activations.table.loc[keep].reset_index(drop=True))


@dataclass(frozen=True, eq=False)
class _Rows:
    """Vectors to describe, with what each is."""

    vectors: Tensor
    rows: list[dict[str, Any]]


@plain_defaults()
def describe_difference(
    base: Any,
    tuned: Any,
    prompts: Iterable[str],
    adapter: Adapter | str | Path | None = None,
    *,
    placebos: Sequence[Any] = (),
    tokens: int = 10,
    halves: int = 20,
    sampling: Sampling = _GREEDY,
    chat: bool | None = None,
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """Describe how the residual streams of a fine-tuned model differ from those of its base.

    Both models read the same prompts. What a narrow fine-tune learnt shows in the differences even where a prompt has
    nothing to do with it (Minder et al. 2025, arXiv 2510.13900). The base describes the mean difference, and those of
    the tokens that changed most, through an adapter. A description of a difference is a guess as any other, so the same
    is done for differences that mean nothing: between halves of the prompts in the base, and for other fine-tunes.

    Args:
        base: the model before, by which the adapter describes: a hooked model, or what `load_model` takes; models that
            are named are loaded in float32.
        tuned: the model after; also the folder of a LoRA adapter of peft, which is merged into a copy of the base.
        prompts: at least four texts, none about what the fine-tune may have learnt.
        adapter: as of `self_explain`, for the base.
        placebos: fine-tunes of the base that learnt nothing in particular, as ``tuned``: for example on texts of the
            pretraining, for as many steps. Without any, what every fine-tune changes cannot be seen apart.
        tokens: how many tokens are described on their own, those with the greatest difference of all prompts.
        halves: how many times the prompts are halved.
        sampling: how many descriptions per difference, and how they are sampled; by default one, greedily.
        chat: whether prompts are user turns; by default as those that the adapter was trained on.
        seed: of the halving.
        progress: whether to show bars.

    Returns:
        a frame, the highest evidence first: ``model`` (``tuned``, ``placebo 1``, ``base``), ``what`` (``mean of all
        tokens``, ``mean of last tokens``, ``token``, ``halves of the prompts``), ``source`` (the prompt of a token),
        ``position`` (-1 for means), ``token``, ``size`` (length of the difference over that of the base's vectors, mean
        over sites), ``sample``, ``description``, ``evidence`` (nats per token), ``p_value`` (the share of descriptions
        of controls with as much evidence, one added to both counts; NaN for controls), ``control``. Tokens that all
        prompts begin with, such as a chat template's, are read in neither.

    Raises:
        InterpToolkitError: fewer than four prompts; models that do not fit each other, are one and the same, or are in
            different dtypes; or what `self_explain` raises.

    Example:
        >>> table = describe_difference("smollm2-135m", "my-lora", prompts, placebos=["placebo-lora"])
        >>> table[~table.control][["what", "description", "evidence", "p_value"]]
    """
    texts = list_prompts(prompts)
    if len(texts) < _FEWEST:
        raise InterpToolkitError(f"expected at least {_FEWEST} prompts, got {len(texts)}; give more, of many kinds")
    if tokens < 0 or halves < 1:
        raise InterpToolkitError(f"expected tokens of at least 0 and halves of at least 1, got {tokens} and {halves}")
    name = base if isinstance(base, (str, Path)) else None
    base = _loaded(base, None)
    facts = model_facts(base)
    adapter = choose_adapter(adapter, facts, None, None)
    contract = adapter.require_contract(facts)
    place = contract.require_site()
    if chat is None:
        chat = has_chat_template(base.tokenizer) if contract.chat is None else contract.chat
    reading = _Reading(texts, place, chat, progress)
    before = reading.read(base)
    models = {TUNED: tuned} | {f"{PLACEBO} {number}": model for number, model in enumerate(placebos, start=1)}
    changes = []
    for of, model in models.items():
        after = _read_beside(of, base, _loaded(model, name), reading, before)
        changes.append(_changes(of, reading, before, after - before.vectors, tokens))
    changes.append(_between_halves(before, len(place.sites), halves, seed))
    vectors = torch.cat([change.vectors for change in changes])
    rows = [row for change in changes for row in change.rows]
    described = self_explain(vectors, model=base, adapter=adapter, sampling=sampling, progress=progress).to_df()
    per_vector = len(described) // len(rows)
    table = pd.DataFrame([row for row in rows for _ in range(per_vector)])
    table = table.assign(**{key: described[key] for key in ("sample", "description", "evidence")})
    table["control"] = table["model"] != TUNED
    table["p_value"] = _p_values(table)
    return table.reindex(columns=list(COLUMNS)).sort_values(
        "evidence", ascending=False, kind="stable", ignore_index=True
    )


def _loaded(model: Any, base: str | Path | None) -> Any:
    """A hooked model; what is loaded by name is in float32, since the rounding of less is as large as a difference."""
    if not isinstance(model, (str, Path)):
        return as_hooked_model(model)
    return load_lora(model, base, _DTYPE) if is_lora(model) else as_hooked_model(model, dtype=_DTYPE)


def _read_beside(of: str, base: Any, model: Any, reading: _Reading, before: Activations) -> Tensor:
    """The vectors of a model at the tokens that were read of its base."""
    if model is base:
        raise InterpToolkitError(f"expected another model than the base as {of}, got the base itself")
    _require_alike(of, base, model)
    after = reading.read(model)
    columns = ["prompt", "position", "token"]
    if not after.table[columns].equals(before.table[columns]):
        raise InterpToolkitError(
            f"expected the same tokens of every prompt in both models, and those of {of} differ; a fine-tune with "
            f"another tokenizer or chat template is compared with chat=False, or not at all"
        )
    if torch.equal(after.vectors, before.vectors):
        raise InterpToolkitError(
            f"the residual streams of {of} are those of the base at every token; expected a fine-tune of other weights"
        )
    return after.vectors


def _changes(of: str, reading: _Reading, before: Activations, change: Tensor, tokens: int) -> _Rows:
    """The differences of one model: two means, and the tokens with the greatest."""
    sites = len(reading.place.sites)
    last = before.table.groupby("prompt")["position"].transform("max").to_numpy()
    at_end = torch.tensor(last == before.table["position"].to_numpy())
    sizes = _sizes(change, before.vectors, sites)
    greatest = sizes.argsort(descending=True)[:tokens].tolist()
    vectors = [change.mean(0), change[at_end].mean(0), *change[greatest]]
    means = [(MEAN, slice(None)), (LAST, at_end)]
    rows = [
        dict(model=of, what=what, source="", position=-1, token="")
        | dict(size=_sizes(change[which].mean(0, keepdim=True), before.vectors[which], sites, True).item())
        for what, which in means
    ]
    for i in greatest:
        row = before.table.iloc[i]
        place_of = dict(source=reading.prompts[int(row["prompt"])], position=int(row["position"]), token=row["token"])
        rows.append(dict(model=of, what=TOKEN) | place_of | dict(size=sizes[i].item()))
    return _Rows(torch.stack(vectors), rows)


def _between_halves(before: Activations, sites: int, count: int, seed: int) -> _Rows:
    """Differences of the base with itself: between means over two halves of the prompts, drawn anew each time."""
    prompts = before.table["prompt"].to_numpy()
    numbers, rng = np.unique(prompts), np.random.default_rng(seed)
    vectors, rows = [], []
    for i in range(count):
        half = torch.tensor(np.isin(prompts, rng.permutation(numbers)[: len(numbers) // 2]))
        difference = before.vectors[half].mean(0) - before.vectors[~half].mean(0)
        vectors.append(difference)
        size = _sizes(difference[None], before.vectors, sites, True).item()
        rows.append(dict(model=BASE, what=HALVES, source=f"halves {i + 1}", position=-1, token="", size=size))
    return _Rows(torch.stack(vectors), rows)


def _sizes(change: Tensor, vectors: Tensor, sites: int, mean: bool = False) -> Tensor:
    """Length of each difference over that of the vectors, or over the mean length of all, mean over sites."""
    by_site = change.unflatten(-1, (sites, -1)).norm(dim=-1)
    lengths = vectors.unflatten(-1, (sites, -1)).norm(dim=-1)
    return (by_site / (lengths.mean(0, keepdim=True) if mean else lengths)).mean(-1)


def _p_values(table: pd.DataFrame) -> np.ndarray:
    """How often controls have as much evidence as each row; NaN for controls, and for what has no evidence."""
    evidence = table["evidence"].to_numpy(dtype=float)
    control = table["control"].to_numpy()
    reached = (evidence[control][None] >= evidence[:, None]).sum(1)
    values = (1 + reached) / (1 + control.sum())
    return np.where(control | np.isnan(evidence), np.nan, values)


def _require_alike(of: str, base: Any, model: Any) -> None:
    """Refuse a model of another width or depth, or in another dtype."""
    one, other = model_facts(base), model_facts(model)
    if (one.d_model, base.cfg.n_layers) != (other.d_model, model.cfg.n_layers):
        raise InterpToolkitError(
            f"expected a fine-tune of the base, with {base.cfg.n_layers} layers of width {one.d_model}, got "
            f"{model.cfg.n_layers} of {other.d_model} as {of}"
        )
    dtypes = [next(x.parameters()).dtype for x in (base, model)]
    if dtypes[0] != dtypes[1]:
        raise InterpToolkitError(
            f"expected both models in one dtype, got the base in {dtypes[0]} and {of} in {dtypes[1]}: their rounding "
            f"would be described; load both with the same dtype"
        )
