"""What a server offers, as functions of request bodies that run in the scheduler's thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import torch
from torch import Tensor

from interp_toolkit.activations import read_activations
from interp_toolkit.adapters import Adapter
from interp_toolkit.centering import means_by_place
from interp_toolkit.chat import prompt_ids, uses_chat
from interp_toolkit.describing import Prepared, describe
from interp_toolkit.engines import LocalEngine
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.evaluation.privileged import logit_lens
from interp_toolkit.explain import prepare
from interp_toolkit.reconstruct import reconstruct
from interp_toolkit.runtime import PromptRun, Sampling, evidence, plain_answers, steered_answers
from interp_toolkit.serve.bodies import (
    AnswerBody,
    DescribeBody,
    ExplainBody,
    LensBody,
    Message,
    ScoreBody,
    SteerBody,
    description_of_cell,
)
from interp_toolkit.serve.limits import Limits
from interp_toolkit.serve.problems import NotFound
from interp_toolkit.sites import Place, Site, SiteStack, parse_place
from interp_toolkit.spans import contents


@dataclass(frozen=True)
class Reading:
    """What a request is about, known before the first description.

    Attributes:
        prepared: vectors and adapter.
        begin: the first line of the response.
    """

    prepared: Prepared
    begin: dict[str, Any]


class Service:
    """A model with adapters, behind a server.

    Args:
        engine: of the model.
        adapters: by the names that clients use; the first that fits is the default.
        limits: of one request.

    Raises:
        InterpToolkitError: no adapter, or one for another model.
    """

    def __init__(self, engine: LocalEngine, adapters: Mapping[str, Adapter], limits: Limits) -> None:
        if not adapters:
            raise InterpToolkitError("expected at least one adapter to serve, got none; name some with --adapter")
        self.engine, self.adapters, self.limits = engine, dict(adapters), limits
        self._nulls: dict[tuple[str, Sampling], list[dict[str, Any]]] = {}
        facts = engine.facts
        for adapter in self.adapters.values():
            adapter.require_contract(facts).require_soft_prompt()
            adapter.to(engine.device)

    def model_facts(self) -> dict[str, Any]:
        """Which model this is."""
        facts = self.engine.facts
        sizes = dict(revision=facts.revision, fingerprint=facts.fingerprint, d_model=facts.d_model)
        return dict(id=facts.model_id, **sizes, n_layers=facts.n_layers, **self.engine.identity)

    def adapter_facts(self) -> list[dict[str, Any]]:
        """Which adapters there are, the default first."""
        rows = []
        for name, adapter in self.adapters.items():
            contract = adapter.require_contract()
            places = contract.reading_places
            rows.append(
                dict(
                    id=name,
                    kind=adapter.config.kind,
                    parameters=adapter.parameter_count,
                    digest=adapter.digest,
                    site=str(contract.site) if contract.site else None,
                    sites=[str(place.site) for place in places],
                    chat=contract.chat,
                    has_way_back=contract.way_back is not None,
                )
            )
        return rows

    def read(self, body: ExplainBody) -> Reading:
        """Read texts in one pass, and center what their tokens hold.

        Args:
            body: which texts, tokens and sites.

        Raises:
            NotFound: no such adapter.
            InterpToolkitError: as `self_explain`; or more tokens or vectors than one request may have.
        """
        prompts = [_prompt(text) for text in body.texts]
        sites: Any = None if body.sites is None else [parse_place(site) for site in body.sites]
        if sites is not None and len(sites) == 1:
            (sites,) = sites
        elif sites is not None and any(isinstance(site, SiteStack) for site in sites):
            raise InterpToolkitError("expected one stack of sites, or several single sites, got a stack among others")
        name, adapter = self._adapter(body.adapter, sites)
        chat = self._chat(body.chat, adapter)
        ids = prompt_ids(self.engine.tokenizer, prompts, chat)
        if (length := sum(map(len, ids))) > self.limits.text_tokens:
            raise InterpToolkitError(
                f"expected texts of at most {self.limits.text_tokens:,} tokens together, got {length:,}; send fewer or "
                f"shorter ones"
            )
        places = adapter.require_contract().places(sites)
        if (cells := length * len(places)) > self.limits.cells and body.positions in ("all", "content"):
            self._refuse_cells(cells)
        prepared = prepare(
            self.engine,
            prompts,
            adapter=adapter,
            sites=sites,
            positions=body.positions,
            chat=body.chat,  # as it was sent: whether it is as in training depends on it
            on_mismatch=body.on_mismatch,
        )
        # A token's sites stand together, so that a reader sees whole tokens first.
        vectors = prepared.vectors
        places_of_tokens = list(zip(vectors.numbers, vectors.positions))
        rank = {place: i for i, place in enumerate(dict.fromkeys(places_of_tokens))}
        order = sorted(range(len(vectors)), key=lambda row: rank[places_of_tokens[row]])
        prepared = replace(prepared, vectors=vectors.take(order))
        begin = self._begin(name, prepared, body.sampling.value(), body.include_null)
        texts = self._tokens(prompts, ids, chat)
        return Reading(prepared, begin | dict(chat=chat, sites=[str(place) for place in places], texts=texts))

    def take(self, body: DescribeBody) -> Reading:
        """Take vectors as they were sent.

        Args:
            body: with the vectors.

        Raises:
            NotFound: no such adapter.
            InterpToolkitError: as `self_explain`; or more vectors than one request may have.
        """
        prepared, name = self._taken(body)
        return Reading(prepared, self._begin(name, prepared, body.sampling.value(), body.include_null))

    def score(self, body: ScoreBody) -> list[dict[str, Any]]:
        """Log-probability and evidence of texts given vectors.

        Args:
            body: texts and vectors.

        Raises:
            InterpToolkitError: counts that do not fit, or as in `take`.
        """
        prepared, _ = self._taken(body)
        adapter = prepared.adapter
        soft_prompt = adapter.require_contract().require_soft_prompt()
        run = PromptRun(self.engine.model, soft_prompt)
        ids = soft_prompt.targets(self.engine.tokenizer, body.texts)
        soft_tokens = adapter(prepared.vectors.values.to(self.engine.device))
        log_probs, evidences = evidence(run, adapter.null(), ids, soft_tokens, body.index)
        columns = zip(body.texts, log_probs.tolist(), evidences.tolist())
        return [dict(text=text, log_prob=log_prob, evidence=value) for text, log_prob, value in columns]

    def lens(self, body: LensBody) -> list[str]:
        """The tokens that the logit lens reads at a place, the most probable first.

        Args:
            body: which place.
        """
        site = self._single(body.site)
        prompt, chat = _prompt(body.text), self._chat(body.chat)
        self._require_length([prompt], chat)
        vectors = read_activations(self.engine.model, [prompt], site, body.position, chat=chat).vectors
        return logit_lens(self.engine.model, vectors, body.tokens)[0]

    def answer(self, body: AnswerBody) -> str:
        """What the model answers.

        Args:
            body: the text.
        """
        chat = self._chat(body.chat)
        self._require_length([body.text], chat)
        return plain_answers(self.engine.model, [body.text], max_new_tokens=body.max_new_tokens, chat=chat)[0]

    def steer(self, body: SteerBody) -> dict[str, Any]:
        """Answers without, with a token's vector added, and with a random one of equal length.

        Args:
            body: the token, and the text that is answered.

        Raises:
            InterpToolkitError: a description's vector is wanted and the adapter has no way back; or as in `read`.
        """
        site = self._single(body.site)
        _, adapter = self._adapter(body.adapter, site)
        chat = self._chat(body.chat, adapter)
        self._require_length([_prompt(body.text), body.prompt], chat)
        vector = self._steering_vector(body, adapter, site, chat)
        random = torch.randn(vector.shape, generator=torch.Generator().manual_seed(body.seed))
        plain, steered, control = steered_answers(
            self.engine.model,
            body.prompt,
            site,
            torch.stack([vector, vector, random]),
            [0.0, body.strength, body.strength],
            max_new_tokens=body.max_new_tokens,
            chat=chat,
        )
        return dict(plain=plain, steered=steered, random=control, site=str(site), strength=body.strength)

    def _steering_vector(self, body: SteerBody, adapter: Adapter, site: Site, chat: bool) -> Tensor:
        """What a token holds at a site less the adapter's mean, or what the way back makes of a description."""
        if body.description is None:
            read = read_activations(self.engine.model, [_prompt(body.text)], site, body.position, chat=chat)
            mean = means_by_place([site], adapter.require_contract(), None, "error")[site]
            return read.vectors[0] if mean is None else read.vectors[0] - mean
        way_back = adapter.require_contract().way_back
        sites = adapter.require_contract().require_site().sites
        if way_back is None or site not in sites:
            raise InterpToolkitError(
                f"expected an adapter with a way back to {site} to steer by a description, got one without; steer by "
                f"the token's own vector"
            )
        by_site = reconstruct(self.engine.model, way_back, [body.description]).view(len(sites), -1)
        return by_site[sites.index(site)]

    def _single(self, site: int | str) -> Site:
        place = parse_place(site)
        if isinstance(place, SiteStack):
            raise InterpToolkitError(f"expected a single site, got the stack {place}")
        return place

    def _taken(self, body: DescribeBody | ScoreBody) -> tuple[Prepared, str]:
        vectors = body.tensor()
        if len(vectors) > self.limits.cells:
            self._refuse_cells(len(vectors))
        site = None if body.site is None else parse_place(body.site)
        name, adapter = self._adapter(body.adapter, site, vectors.shape[1])
        prepared = prepare(self.engine, vectors, adapter=adapter, sites=site, centered=body.centered)
        return prepared, name

    def _adapter(self, name: str | None, sites: Any, width: int | None = None) -> tuple[str, Adapter]:
        """The adapter of a name, or the first that reads these sites or takes vectors of this width."""
        if name is not None:
            if name not in self.adapters:
                raise NotFound(f"expected one of the adapters {', '.join(self.adapters)}, got {name[:80]!r}")
            return name, self.adapters[name]
        wanted: list[Place] = [] if sites is None else sites if isinstance(sites, list) else [sites]
        d_model = self.engine.facts.d_model
        for known, adapter in self.adapters.items():
            contract = adapter.require_contract()
            widths = {d_model * len(place.site.sites) for place in contract.reading_places} | {adapter.config.width}
            if all(contract.reading_place(place) for place in wanted) and (width is None or width in widths):
                return known, adapter
        return next(iter(self.adapters.items()))

    def _refuse_cells(self, cells: int) -> NoReturn:
        raise InterpToolkitError(
            f"expected at most {self.limits.cells:,} vectors per request, got {cells:,}; send fewer tokens, sites or "
            f"vectors"
        )

    def _begin(self, name: str, prepared: Prepared, sampling: Sampling, include_null: bool) -> dict[str, Any]:
        cells = len(prepared.vectors)
        if cells > self.limits.cells:
            self._refuse_cells(cells)
        begin: dict[str, Any] = dict(
            type="begin", adapter=name, digest=prepared.adapter.digest, model=self.engine.facts.model_id, cells=cells
        )
        if include_null:
            begin["null"] = self._null(name, prepared, sampling)
        return begin

    def _null(self, name: str, prepared: Prepared, sampling: Sampling) -> list[dict[str, Any]]:
        """What an adapter says of nothing: the same in every request."""
        key = (name, sampling)
        if key not in self._nulls:
            if len(self._nulls) >= 64:  # clients choose the sampling
                self._nulls.clear()
            nothing = Prepared(prepared.adapter, prepared.vectors.take([]), prepared.as_in_training)
            self._nulls[key] = [
                description_of_cell(row) for row in describe(self.engine, nothing, sampling, include_null=True)
            ]
        return self._nulls[key]

    def _tokens(self, prompts: Sequence[Any], ids: Sequence[Sequence[int]], chat: bool) -> list[dict[str, Any]]:
        """Each text's tokens, and from where to where they are its own."""
        tokenizer = self.engine.tokenizer
        texts = []
        for prompt, row in zip(prompts, ids):
            span = contents(tokenizer, [row], chat)[0] if isinstance(prompt, str) else (0, len(row))
            texts.append(dict(tokens=[tokenizer.decode([token]) for token in row], span=span))
        return texts

    def _chat(self, chat: bool | None, adapter: Adapter | None = None) -> bool:
        """Whether texts are user turns: as a request says, else as in the adapter's training."""
        if chat is None and adapter is not None:
            chat = adapter.require_contract().chat
        return uses_chat(self.engine.tokenizer, chat)

    def _require_length(self, prompts: Sequence[Any], chat: bool) -> None:
        length = sum(map(len, prompt_ids(self.engine.tokenizer, prompts, chat)))
        if length > self.limits.text_tokens:
            raise InterpToolkitError(f"expected at most {self.limits.text_tokens:,} tokens, got {length:,}")


def _prompt(text: str | Sequence[Message]) -> Any:
    return text if isinstance(text, str) else [message.model_dump() for message in text]
