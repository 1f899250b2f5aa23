"""From vectors that were read and centered to their descriptions, with evidence and confidence."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch

from interp_toolkit.adapters import Adapter, soft_tokens_of
from interp_toolkit.confidence import TokenKind, description_features
from interp_toolkit.contract import Contract
from interp_toolkit.engines import Engine, LocalEngine
from interp_toolkit.explanations import Explanation, Explanations
from interp_toolkit.inputs import Vectors
from interp_toolkit.models.processors import threads_with_a_processor
from interp_toolkit.read_back import read_back
from interp_toolkit.runtime import Generation, Sampling
from interp_toolkit.sites import parse_place
from interp_toolkit.soft_prompt import SoftPrompt

_NULL_VECTOR = "null vector"


@dataclass(frozen=True, eq=False)
class Prepared:
    """Vectors, and the adapter that they are described by.

    Attributes:
        adapter: with its contract.
        vectors: read and centered.
        as_in_training: whether prompts were read in the form, chat or plain text, that the adapter was trained on.
    """

    adapter: Adapter
    vectors: Vectors
    as_in_training: bool


@contextmanager
def on_still_model(engine: Engine) -> Iterator[None]:
    """For the length of the block, look at a hooked model, and at what else runs, once.

    Args:
        engine: of the model.
    """
    with engine.still() if isinstance(engine, LocalEngine) else nullcontext(), threads_with_a_processor():
        yield


def describe(
    engine: Engine, prepared: Prepared, sampling: Sampling, include_null: bool = False, progress: bool = False
) -> Explanations:
    """Describe vectors, each on its own: a row's descriptions do not depend on the rows beside it.

    Args:
        engine: that runs the model.
        prepared: what `prepare` returns.
        sampling: how many descriptions per vector, and how they are sampled.
        include_null: whether to describe the null vector too.
        progress: whether to show a bar.

    Returns:
        `Explanations`, in the order of the vectors, the null vector's last.
    """
    adapter, vectors, as_in_training = prepared.adapter, prepared.vectors, prepared.as_in_training
    contract = adapter.require_contract()
    texts = _describe(engine, adapter, contract.require_soft_prompt(), vectors, sampling, include_null, progress)
    confidences = _confidences(engine, adapter, vectors, texts, sampling) if as_in_training else {}
    return _explanations(vectors, texts, contract, sampling, as_in_training, confidences)


def _describe(
    engine: Engine,
    adapter: Adapter,
    soft_prompt: SoftPrompt,
    vectors: Vectors,
    sampling: Sampling,
    include_null: bool,
    progress: bool,
) -> list[list[Generation]]:
    """The texts for every vector and scale, in this order, and those for the null vector last.

    Equal rows, such as those of a template that many prompts share, are described once.
    """
    if any(parameter.device != engine.device for parameter in adapter.parameters()):
        adapter = copy.deepcopy(adapter).to(engine.device)  # the caller's stays where it is
    scales, temperature = sampling.scale_factors, sampling.effective_temperature
    with torch.no_grad():
        values = vectors.values.to(engine.device)
        # Of as many vectors as a row has.
        null = soft_tokens_of(adapter, values.new_zeros(1, *values.shape[1:]))[0].to(engine.device)
        by_scale = [soft_tokens_of(adapter, values, scale) for scale in scales]
        # The order of the table: the scales of a vector stand together.
        soft_tokens = torch.stack(by_scale, 1).flatten(0, 1) if len(values) else null[None][:0]
    row_ids = [f"{row_id} {scale}".encode() for row_id in vectors.row_ids for scale in scales]
    # A row's id decides its draws; without draws rows of equal content are equal.
    content = [(value.tobytes(), scale) for value in vectors.values.float().cpu().numpy() for scale in scales]
    keys = [(*key, row_id if temperature else b"") for key, row_id in zip(content, row_ids)]
    first: dict[tuple[bytes, float, bytes], int] = {}
    for i, key in enumerate(keys):
        first.setdefault(key, i)
    soft_tokens = soft_tokens[torch.tensor(list(first.values()), dtype=torch.long, device=engine.device)]
    row_ids = [row_ids[i] for i in first.values()]
    if include_null:
        soft_tokens = torch.cat([soft_tokens, null[None]])
        row_ids.append(b"null")
    texts = engine.generate(
        soft_prompt,
        soft_tokens,
        null=null,
        samples=int(sampling.n),
        temperature=temperature,
        top_p=sampling.top_p,
        seed=int(sampling.seed),
        row_ids=row_ids,
        max_new_tokens=int(sampling.max_new_tokens),
        progress=progress,
    )
    by_key = dict(zip(first, texts))
    return [by_key[key] for key in keys] + texts[len(first) :]


def _explanations(
    vectors: Vectors,
    texts: Sequence[Sequence[Generation]],
    contract: Contract,
    sampling: Sampling,
    as_in_training: bool,
    confidences: Mapping[tuple[int, int], float],
) -> Explanations:
    """The table of what `_describe` returned, with verdicts where the adapter's threshold applies."""
    origins = [
        (*origin, scale)
        for origin in zip(vectors.sources, vectors.sites, vectors.positions, vectors.tokens, vectors.thresholds)
        for scale in sampling.scale_factors
    ]
    if len(texts) > len(origins):
        origins.append((_NULL_VECTOR, "", -1, "", contract.threshold, 1.0))
    rows = []
    for number, ((source, site, position, token, threshold, scale), samples) in enumerate(zip(origins, texts)):
        applies = threshold is not None and threshold.applies(
            scale=scale,
            temperature=sampling.effective_temperature,
            max_new_tokens=int(sampling.max_new_tokens),
            other_soft_prompt=not as_in_training,
        )
        for i, text in enumerate(samples):
            # NaN, of an empty description, reaches no threshold.
            above = text.evidence >= threshold.value if threshold and applies else None
            rows.append(
                Explanation(
                    source,
                    site,
                    position,
                    i,
                    text.text,
                    text.log_prob,
                    text.evidence,
                    above,
                    scale,
                    token,
                    confidences.get((number, i)),
                )
            )
    return Explanations(rows)


def _confidences(
    engine: Engine, adapter: Adapter, vectors: Vectors, texts: Sequence[Sequence[Generation]], sampling: Sampling
) -> dict[tuple[int, int], float]:
    """The confidence of each description, by number of its vector and sample, where the contract has a model of it."""
    contract, several = adapter.require_contract(), int(sampling.n) > 1
    usual = replace(sampling, n=1 + several, temperature=sampling.effective_temperature, seed=0)
    calibrated = Sampling(n=1 + several, temperature=Sampling(n=1 + several).effective_temperature)
    if not contract.confidence or usual != calibrated or not isinstance(engine, LocalEngine):
        return {}
    by_model: dict[tuple[str, TokenKind], list[int]] = {}
    for i, (site, kind) in enumerate(zip(vectors.sites, vectors.kinds)):
        if kind is not None:
            by_model.setdefault((site, kind), []).append(i)
    confidences = {}
    for (site, kind), numbers in by_model.items():
        model = contract.confidence_model(parse_place(site), kind, several)
        if model is None:
            continue
        which = [(i, sample) for i in numbers for sample in range(len(texts[i]))]
        described = [texts[i][sample] for i, sample in which]
        values = vectors.values[torch.tensor([i for i, _ in which])]
        features = description_features(
            [[text.text for text in texts[i]] for i in numbers],
            [text.log_prob for text in described],
            [text.evidence for text in described],
            [len(text.token_ids) for text in described],
            read_back(engine.model, adapter, values, [text.text for text in described], site),
        )
        confidences |= dict(zip(which, model.probability(features).tolist()))
    return confidences
