"""What a server offers beside descriptions, as functions of request bodies that run in the scheduler's thread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from interp_toolkit.activations import read_activations
from interp_toolkit.adapters import Adapter
from interp_toolkit.centering import means_by_place
from interp_toolkit.engines import LocalEngine
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.evaluation.privileged import logit_lens
from interp_toolkit.reconstruct import reconstruct
from interp_toolkit.runtime import PromptRun, evidence, plain_answers, steered_answers
from interp_toolkit.serve.adapters import ServedAdapters
from interp_toolkit.serve.bodies import AnswerBody, LensBody, ScoreBody, SteerBody, prompt_of
from interp_toolkit.serve.features import Features
from interp_toolkit.serve.limits import Limits
from interp_toolkit.serve.reading import Reader
from interp_toolkit.sites import Site, SiteStack, parse_place


class Service:
    """A model with adapters, behind a server.

    Args:
        engine: of the model.
        adapters: by the names that clients use; the first that fits is the default.
        limits: of one request.
        features: of an SAE of the model; None for none.

    Attributes:
        engine: of the model.
        adapters: that clients may name.
        reader: of what requests bring.
        limits: of one request.
        features: of an SAE; None for none.

    Raises:
        InterpToolkitError: no adapter, or one for another model.
    """

    def __init__(
        self,
        engine: LocalEngine,
        adapters: Mapping[str, Adapter],
        limits: Limits,
        features: Features | None = None,
    ) -> None:
        self.engine, self.limits, self.features = engine, limits, features
        self.adapters = ServedAdapters(engine, adapters)
        self.reader = Reader(engine, self.adapters, limits)

    def model_facts(self) -> dict[str, Any]:
        """Which model this is."""
        facts = self.adapters.model
        sizes = dict(revision=facts.revision, fingerprint=facts.fingerprint, d_model=facts.d_model)
        features = 0 if self.features is None else len(self.features)
        return dict(id=facts.model_id, **sizes, n_layers=facts.n_layers, features=features, **self.engine.identity)

    def score(self, body: ScoreBody) -> list[dict[str, Any]]:
        """Log-probability and evidence of texts given vectors.

        Args:
            body: texts and vectors.

        Raises:
            InterpToolkitError: counts that do not fit, or as in `Reader.take`.
        """
        _, prepared = self.reader.vectors(body)
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
        site = _single(body.site)
        prompt, chat = prompt_of(body.text), self.adapters.chat(body.chat)
        self.reader.require_length([prompt], chat)
        vectors = read_activations(self.engine.model, [prompt], site, body.position, chat=chat).vectors
        return logit_lens(self.engine.model, vectors, body.tokens)[0]

    def answer(self, body: AnswerBody) -> str:
        """What the model answers.

        Args:
            body: the text.
        """
        chat = self.adapters.chat(body.chat)
        self.reader.require_length([body.text], chat)
        return plain_answers(self.engine.model, [body.text], max_new_tokens=body.max_new_tokens, chat=chat)[0]

    def steer(self, body: SteerBody) -> dict[str, Any]:
        """Answers without, with a token's vector added, and with a random one of equal length.

        Args:
            body: the token, and the text that is answered.

        Raises:
            InterpToolkitError: a description's vector is wanted and the adapter has no way back; or as in
                `Reader.read`.
        """
        site = _single(body.site)
        _, adapter = self.adapters.choose(body.adapter, site)
        chat = self.adapters.chat(body.chat, adapter)
        self.reader.require_length([prompt_of(body.text), body.prompt], chat)
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
            read = read_activations(self.engine.model, [prompt_of(body.text)], site, body.position, chat=chat)
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


def _single(site: int | str) -> Site:
    place = parse_place(site)
    if isinstance(place, SiteStack):
        raise InterpToolkitError(f"expected a single site, got the stack {place}")
    return place
