"""From the bodies of requests to vectors with their adapter: texts of several requests are read in one pass."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from interp_toolkit.adapters import Adapter
from interp_toolkit.chat import prompt_ids
from interp_toolkit.describing import Prepared, describe
from interp_toolkit.engines import LocalEngine
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.explain import prepare
from interp_toolkit.inputs import Vectors
from interp_toolkit.runtime import Sampling
from interp_toolkit.serve.adapters import ServedAdapters
from interp_toolkit.serve.bodies import DescribeBody, ExplainBody, ScoreBody, description_of_cell, prompt_of
from interp_toolkit.serve.limits import Limits
from interp_toolkit.sites import Place, SiteStack, parse_place
from interp_toolkit.spans import contents

# Samplings whose descriptions of nothing are kept; clients choose them.
_NULLS = 64


@dataclass(frozen=True)
class Reading:
    """What a request is about, known before the first description.

    Attributes:
        prepared: vectors and adapter.
        begin: the first line of the response.
    """

    prepared: Prepared
    begin: dict[str, Any]


@dataclass(frozen=True, eq=False)
class _Texts:
    """The texts of a request, checked against the limits."""

    body: ExplainBody
    name: str
    adapter: Adapter
    prompts: list[Any]
    sites: Any
    places: list[Place]
    chat: bool
    ids: list[list[int]]

    @property
    def together(self) -> tuple[Any, ...]:
        """Requests in which this is equal can be read in one pass."""
        body = self.body
        positions = tuple(body.positions) if isinstance(body.positions, list) else body.positions
        return self.name, tuple(map(str, self.places)), positions, body.chat, body.on_mismatch

    @property
    def length(self) -> int:
        """Number of tokens."""
        return sum(map(len, self.ids))


class Reader:
    """Reads what requests bring.

    Args:
        engine: of the model.
        adapters: that describe.
        limits: of one request.
    """

    def __init__(self, engine: LocalEngine, adapters: ServedAdapters, limits: Limits) -> None:
        self._engine, self._adapters, self._limits = engine, adapters, limits
        self._nulls: dict[tuple[str, Sampling], list[dict[str, Any]]] = {}

    def read(self, bodies: Sequence[ExplainBody]) -> list[Reading | Exception]:
        """Read texts, those that are read alike in one pass, and center what their tokens hold.

        Args:
            bodies: which texts, tokens and sites.

        Returns:
            for each body its reading, or why there is none: `NotFound` for an adapter, or an InterpToolkitError as
            `self_explain` raises it, or for more tokens or vectors than one request may have.
        """
        out: list[Reading | Exception | None] = [None] * len(bodies)
        groups: dict[tuple[Any, ...], list[tuple[int, _Texts]]] = defaultdict(list)
        for i, body in enumerate(bodies):
            try:
                texts = self._texts(body)
            except InterpToolkitError as error:
                out[i] = error
            else:
                groups[texts.together].append((i, texts))
        for group in groups.values():
            for part in self._passes(group):
                for (i, _), result in zip(part, self._read_together([texts for _, texts in part])):
                    out[i] = result
        return [result for result in out if result is not None]

    def take(self, body: DescribeBody) -> Reading:
        """Take vectors as they were sent.

        Args:
            body: with the vectors.

        Raises:
            NotFound: no such adapter.
            InterpToolkitError: as `self_explain`; or more vectors than one request may have.
        """
        name, prepared = self.vectors(body)
        return Reading(prepared, self._begin(name, prepared, body.sampling.value(), body.include_null))

    def vectors(self, body: DescribeBody | ScoreBody) -> tuple[str, Prepared]:
        """The vectors of a body with their adapter, and the name of it; the rest as in `take`."""
        vectors = body.tensor()
        self._require_cells(len(vectors))
        site = None if body.site is None else parse_place(body.site)
        name, adapter = self._adapters.choose(body.adapter, site, vectors.shape[1])
        return name, prepare(self._engine, vectors, adapter=adapter, sites=site, centered=body.centered)

    def require_length(self, prompts: Sequence[Any], chat: bool) -> list[list[int]]:
        """The ids of prompts, where they are not too many.

        Args:
            prompts: of one request.
            chat: whether texts are user turns.

        Raises:
            InterpToolkitError: the text names the limit.
        """
        ids = prompt_ids(self._engine.tokenizer, prompts, chat)
        if (length := sum(map(len, ids))) > self._limits.text_tokens:
            raise InterpToolkitError(
                f"expected texts of at most {self._limits.text_tokens:,} tokens together, got {length:,}; send fewer "
                f"or shorter ones"
            )
        return ids

    def _texts(self, body: ExplainBody) -> _Texts:
        prompts = [prompt_of(text) for text in body.texts]
        sites: Any = None if body.sites is None else [parse_place(site) for site in body.sites]
        if sites is not None and len(sites) == 1:
            (sites,) = sites
        elif sites is not None and any(isinstance(site, SiteStack) for site in sites):
            raise InterpToolkitError("expected one stack of sites, or several single sites, got a stack among others")
        name, adapter = self._adapters.choose(body.adapter, sites)
        chat = self._adapters.chat(body.chat, adapter)
        ids = self.require_length(prompts, chat)
        places = adapter.require_contract().places(sites)
        texts = _Texts(body, name, adapter, prompts, sites, places, chat, ids)
        if body.positions in ("all", "content"):
            self._require_cells(texts.length * len(places))  # before they are read
        return texts

    def _passes(self, group: Sequence[tuple[int, _Texts]]) -> list[list[tuple[int, _Texts]]]:
        """Requests in groups of no more tokens than one may have."""
        passes: list[list[tuple[int, _Texts]]] = []
        room = 0
        for item in group:
            length = item[1].length
            if not passes or length > room:
                passes.append([])
                room = self._limits.text_tokens
            passes[-1].append(item)
            room -= length
        return passes

    def _read_together(self, several: Sequence[_Texts]) -> list[Reading | Exception]:
        first = several[0]
        try:
            prepared = prepare(
                self._engine,
                [prompt for texts in several for prompt in texts.prompts],
                adapter=first.adapter,
                sites=first.sites,
                positions=first.body.positions,
                chat=first.body.chat,  # as it was sent: whether it is as in training depends on it
                on_mismatch=first.body.on_mismatch,
            )
        except InterpToolkitError as error:
            # The error is that of one of them, and names its prompt by its number.
            return [error] if len(several) == 1 else [self._read_together([texts])[0] for texts in several]
        readings: list[Reading | Exception] = []
        start = 0
        for texts in several:
            end = start + len(texts.prompts)
            vectors = _of_prompts(prepared.vectors, start, end)
            try:
                readings.append(self._reading(texts, replace(prepared, vectors=vectors)))
            except InterpToolkitError as error:
                readings.append(error)
            start = end
        return readings

    def _reading(self, texts: _Texts, prepared: Prepared) -> Reading:
        body = texts.body
        begin = self._begin(texts.name, prepared, body.sampling.value(), body.include_null)
        tokenizer, of_texts = self._engine.tokenizer, []
        for prompt, row in zip(texts.prompts, texts.ids):
            span = contents(tokenizer, [row], texts.chat)[0] if isinstance(prompt, str) else (0, len(row))
            of_texts.append(dict(tokens=[tokenizer.decode([token]) for token in row], span=span))
        sites = [str(place) for place in texts.places]
        return Reading(prepared, begin | dict(chat=texts.chat, sites=sites, texts=of_texts))

    def _require_cells(self, cells: int) -> None:
        if cells > self._limits.cells:
            raise InterpToolkitError(
                f"expected at most {self._limits.cells:,} vectors per request, got {cells:,}; send fewer tokens, sites "
                f"or vectors"
            )

    def _begin(self, name: str, prepared: Prepared, sampling: Sampling, include_null: bool) -> dict[str, Any]:
        cells = len(prepared.vectors)
        self._require_cells(cells)
        names = dict(adapter=name, digest=self._adapters.digest(name), model=self._adapters.model.model_id)
        begin: dict[str, Any] = dict(type="begin", **names, cells=cells)
        if include_null:
            begin["null"] = self._null(name, prepared, sampling)
        return begin

    def _null(self, name: str, prepared: Prepared, sampling: Sampling) -> list[dict[str, Any]]:
        """What an adapter says of nothing: the same in every request."""
        key = (name, sampling)
        if key not in self._nulls:
            if len(self._nulls) >= _NULLS:
                self._nulls.clear()
            nothing = Prepared(prepared.adapter, prepared.vectors.take([]), prepared.as_in_training)
            rows = describe(self._engine, nothing, sampling, include_null=True)
            self._nulls[key] = [description_of_cell(row) for row in rows]
        return self._nulls[key]


def _of_prompts(vectors: Vectors, start: int, end: int) -> Vectors:
    """The vectors of some of the prompts, numbered anew; a token's sites stand together, so that whole tokens come."""
    rows = [row for row, number in enumerate(vectors.numbers) if start <= number < end]
    tokens = [(vectors.numbers[row], vectors.positions[row]) for row in rows]
    rank = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    order = sorted(range(len(rows)), key=lambda i: rank[tokens[i]])
    chosen = vectors.take([rows[i] for i in order])
    return replace(chosen, numbers=[number - start for number in chosen.numbers])
