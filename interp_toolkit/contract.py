"""The contract: all that must agree for an adapter to be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from interp_toolkit.confidence import ConfidenceModel, TokenKind
from interp_toolkit.deprecation import warn_renamed
from interp_toolkit.errors import ContractError, FileFormatError, InterpToolkitError
from interp_toolkit.probe import Probe, parse_probe
from interp_toolkit.reading_place import EvidenceThreshold, ReadingPlace, parse_reading_place
from interp_toolkit.settings import settings_from
from interp_toolkit.sites import Place, PlaceLike, Site, SiteStack, parse_place, parse_sites
from interp_toolkit.soft_prompt import SoftPrompt
from interp_toolkit.tables import brief_repr
from interp_toolkit.tensor_type import Tensor
from interp_toolkit.way_back import WayBack, parse_way_back


@dataclass(frozen=True)
class ModelFacts:
    """Who a hooked model is.

    Attributes:
        model_id: hub id or folder that it was loaded from.
        revision: commit, or what stands for it; empty where unknown.
        fingerprint: 16 hexadecimal digits of a hash over the signs in rows of the token embedding. It tells one model
            from another whatever the path, dtype or class; a light fine-tune may keep it.
        d_model: width of the residual stream.
        n_layers: number of blocks.
        block_signs: for each block how many numbers in its weight matrices are positive; the same in every dtype and
            class. Empty where unknown.
    """

    model_id: str
    revision: str
    fingerprint: str
    d_model: int
    n_layers: int
    block_signs: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Contract:
    """What an adapter was trained with, saved beside its weights.

    An adapter may have been trained for a range of places: that of ``site``, where prompts are read by default, and
    those of ``more``, each with its own mean and threshold.

    Attributes:
        model_id: hub id of the model, or the folder it came from.
        revision: its commit; empty where the adapter's file does not say.
        fingerprint: `ModelFacts.fingerprint`; empty where the adapter's file does not say.
        d_model: width of the residual stream.
        site: where the training vectors were read, at one site or a stack of them; None where the file does not say.
        mean: what was taken off them (the mean over the training vectors), or None for directions taken as they are.
        normalize: whether the adapter scales vectors to length one first.
        soft_prompt: the question, its slots, and where soft tokens are written; None where the file does not say.
        threshold: the evidence from which on a description is taken to be of its vector; None before calibration.
        versions: library versions at training time, for the record.
        block_signs: `ModelFacts.block_signs`; empty where the adapter's file does not say.
        chat: whether the prompts that vectors were read from were user turns in the chat template (True) or plain text
            (False); None where nothing says so, and then they are user turns where the model has a chat template.
        more: further places that vectors may be from. A site of an adapter for a stack fills its part of the stack, or
            that of the stack's nearest site, and the other parts are zero, as they were for such vectors in training.
        confidence: models of the probability that a description is right, one for each kind of vectors that it was
            calibrated on.
        way_back: a trained map from descriptions back to vectors, see `fit_way_back`; None where there is none.
        probe: what the model gives for a few texts, see `interp_toolkit.runtime.make_probe`; None where there is none.
    """

    model_id: str
    d_model: int
    site: Place | None
    soft_prompt: SoftPrompt | None
    normalize: bool = True
    mean: Tensor | None = None
    revision: str = ""
    fingerprint: str = ""
    threshold: EvidenceThreshold | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    block_signs: tuple[int, ...] = ()
    chat: bool | None = None
    more: tuple[ReadingPlace, ...] = ()
    confidence: tuple[ConfidenceModel, ...] = ()
    way_back: WayBack | None = None
    probe: Probe | None = None

    __repr__ = brief_repr

    @property
    def reading_places(self) -> tuple[ReadingPlace, ...]:
        """Every place that the contract names, that of ``site`` first."""
        first = () if self.site is None else (ReadingPlace(self.site, self.mean, self.threshold),)
        return (*first, *self.more)

    def reading_place(self, site: Place) -> ReadingPlace | None:
        """What belongs to vectors from a site; None where the adapter was not trained on it."""
        if self.site is None:  # the adapter's file does not say, so it may be any
            return ReadingPlace(site, self.mean, self.threshold)
        return next((place for place in self.reading_places if place.site == site), None)

    def confidence_model(self, site: Place, token: TokenKind, several: bool) -> ConfidenceModel | None:
        """The model of confidence for descriptions of such vectors; None where none was calibrated.

        Args:
            site: where they were read.
            token: which tokens they are of.
            several: whether each has several samples.
        """
        kind = (site, token, several)
        return next((model for model in self.confidence if (model.site, model.token, model.several) == kind), None)

    def filled(self, vectors: Tensor, site: Place) -> Tensor:
        """Vectors from a place as the adapter takes them.

        Args:
            vectors: [n, d_model for each site of the place].
            site: where they were read.

        Returns:
            [n, width]: those of a single site in their part of the stack with zeros in the others; all others as they
            are.
        """
        if not isinstance(site, Site) or not isinstance(self.site, SiteStack) or self.reading_place(site) is None:
            return vectors
        sites = self.site.sites
        part = min(range(len(sites)), key=lambda i: (abs(sites[i].layer - site.layer), i))
        filled = vectors.new_zeros(len(vectors), len(sites) * self.d_model)
        filled[:, part * self.d_model : (part + 1) * self.d_model] = vectors
        return filled

    @classmethod
    def from_facts(
        cls,
        facts: ModelFacts,
        site: Place | None,
        soft_prompt: SoftPrompt,
        mean: Tensor | None,
        normalize: bool,
        chat: bool | None = None,
    ) -> Contract:
        """Return the contract of an adapter that is trained now, with the versions of the libraries.

        Args:
            facts: of the model that it is trained for.
            site: where the training vectors were read; None for directions that no site gave.
            soft_prompt: the question and its slots.
            mean: what was subtracted from the vectors, or None.
            normalize: whether the adapter scales vectors to length one first.
            chat: whether the prompts were user turns in the chat template; None where nothing says so.
        """
        return cls(
            model_id=facts.model_id,
            d_model=facts.d_model,
            site=site,
            soft_prompt=soft_prompt,
            normalize=normalize,
            mean=mean,
            revision=facts.revision,
            fingerprint=facts.fingerprint,
            versions=library_versions(),
            block_signs=facts.block_signs,
            chat=chat,
        )

    @classmethod
    def of(cls, *args: Any, **kwargs: Any) -> Contract:
        """Deprecated: use `from_facts`."""
        warn_renamed("Contract.of", "Contract.from_facts")
        return cls.from_facts(*args, **kwargs)

    def is_of(self, facts: ModelFacts) -> bool:
        """Whether the adapter is a model's: by the fingerprints where both sides have one, else by the names."""
        if self.fingerprint and facts.fingerprint:
            return self.fingerprint == facts.fingerprint
        mine, other = (name.rstrip("/").rsplit("/", 1)[-1].lower() for name in (self.model_id, facts.model_id))
        return mine == other

    def check_model(self, facts: ModelFacts) -> None:
        """Refuse a model that the adapter was not trained for.

        Fingerprints decide where both sides have one. Else the names do, by their last part, since one model may be
        loaded from the hub and from a folder. The signs in the blocks tell a model from its fine-tunes and edits.

        Raises:
            ContractError: another width, another model, other weights in its blocks, or too few layers.
        """
        if self.d_model != facts.d_model:
            raise ContractError(
                f"the adapter is for vectors of width {self.d_model} ({self.model_id}), the model {facts.model_id} has "
                f"d_model {facts.d_model}; load the adapter's own model, or train an adapter for this one"
            )
        if not self.is_of(facts):
            raise ContractError(
                f"the adapter was trained on {self.model_id} (fingerprint {self.fingerprint or 'unknown'}), the model "
                f"is {facts.model_id} (fingerprint {facts.fingerprint or 'unknown'}); load the adapter's own model, or "
                f"train an adapter for this one"
            )
        if not same_blocks(facts.block_signs, self.block_signs):
            raise ContractError(
                f"the adapter was trained on {self.model_id}, and the blocks of this model have other weights, though "
                f"its embedding is the same: it was fine-tuned, edited, merged or processed since; load the model as "
                f"the adapter's was, train an adapter for this one, or, to try it all the same, set adapter.contract = "
                f"dataclasses.replace(adapter.contract, block_signs=())"
            )
        if self.site is not None:
            self.site.require_in(facts.n_layers)
        if self.way_back is not None:
            self.way_back.site.require_in(facts.n_layers)

    def require_soft_prompt(self) -> SoftPrompt:
        """The soft prompt that the adapter was trained with.

        Raises:
            InterpToolkitError: the adapter's file names none.
        """
        if self.soft_prompt is None:
            raise InterpToolkitError("the adapter's file names no soft prompt; see Adapter.with_soft_prompt")
        return self.soft_prompt

    def require_site(self) -> Place:
        """The place where the adapter's vectors were read.

        Raises:
            InterpToolkitError: the contract names none.
        """
        if self.site is None:
            raise InterpToolkitError("expected an adapter whose contract names where its vectors were read")
        return self.site

    def require_way_back(self) -> WayBack:
        """The trained way back from a description to a vector.

        Raises:
            InterpToolkitError: the contract has none.
        """
        if self.way_back is None:
            raise InterpToolkitError(
                "the adapter's contract has no way back from a description to a vector; fit one with fit_way_back and "
                "set adapter.contract = dataclasses.replace(adapter.contract, way_back=...)"
            )
        return self.way_back

    def places(self, sites: PlaceLike | None) -> list[Place]:
        """Where to read vectors for the adapter: at each of ``sites`` once, by default at its own.

        Args:
            sites: one site or several, each on its own; for an adapter of a stack alone, that `SiteStack`.

        Raises:
            InterpToolkitError: none is asked for, and the adapter's file names none.
            ContractError: another stack than the adapter's, or a single site for an adapter of a stack alone.
        """
        if sites is None:
            if self.site is None:
                raise InterpToolkitError("the adapter's file does not name the site it was trained on; pass sites=...")
            return [self.site]
        if isinstance(sites, SiteStack) or (isinstance(self.site, SiteStack) and not self._reads_alone(sites)):
            self.check_site(stack := parse_place(sites))
            return [stack]
        return list(dict.fromkeys(parse_sites(sites)))

    def _reads_alone(self, sites: PlaceLike) -> bool:
        """Whether an adapter of a stack takes vectors of each of these sites alone."""
        named = isinstance(sites, str) and "+" in sites
        return not named and all(self.reading_place(site) for site in parse_sites(sites))

    def check_site(self, site: Place) -> None:
        """Refuse vectors from a site that the adapter was not trained on.

        Raises:
            ContractError: another site.
        """
        if self.site is not None and self.reading_place(site) is None:
            trained = ", ".join(str(place.site) for place in self.reading_places)
            one = isinstance(site, Site) and isinstance(self.site, Site)
            anyway = ", or pass on_mismatch='warn' (--any-layer) to try it anyway" if one else ""
            raise ContractError(
                f"the adapter was trained on vectors from {trained}, these are from {site}; read what it was trained "
                f"on, or use an adapter for these{anyway}"
            )

    def centre(self, vectors: Tensor) -> Tensor:
        """Raw residual-stream vectors less the training mean; unchanged where the contract has none."""
        return vectors if self.mean is None else vectors - self.mean.to(vectors)

    def to_dict(self) -> dict[str, Any]:
        """A form that JSON can hold; means and the way back's matrices are tensors and are stored apart."""
        stated = dict(
            model_id=self.model_id,
            revision=self.revision,
            fingerprint=self.fingerprint,
            d_model=self.d_model,
            site=str(self.site) if self.site else None,
            centring="mean" if self.mean is not None else "none",
            normalize=self.normalize,
            soft_prompt=self.soft_prompt.to_dict() if self.soft_prompt else None,
            threshold=asdict(self.threshold) if self.threshold else None,
            versions=dict(self.versions),
            block_signs=list(self.block_signs),
            chat=self.chat,
            more=[place.to_dict() for place in self.more],
        )
        # Where there is none the key is left out, so that the files of such adapters are what they always were.
        if self.confidence:
            stated["confidence"] = [model.to_dict() for model in self.confidence]
        if self.way_back is not None:
            stated["way_back"] = self.way_back.to_dict()
        if self.probe is not None:
            stated["probe"] = self.probe.to_dict()
        return stated

    @classmethod
    def from_dict(
        cls,
        data: Mapping[str, Any],
        mean: Tensor | None,
        more_means: Sequence[Tensor | None] = (),
        way_back: Mapping[str, Tensor] | None = None,
    ) -> Contract:
        """The inverse of `to_dict`; all of it or none.

        Args:
            data: as `to_dict` gives it.
            mean: the tensor of ``mean``.
            more_means: those of ``more``, in order.
            way_back: the tensors of ``way_back``, see `WayBack.tensors`.

        Raises:
            FileFormatError: a part is missing or unknown, or a tensor does not fit what the contract says of it.
        """
        expected = {*cls("", 0, None, None).to_dict(), "confidence", "way_back", "probe"}
        # Version 0.1 did not write the first three, and the others are written where there are any.
        data = {"chat": None, "block_signs": [], "more": [], "confidence": [], "way_back": None, "probe": None, **data}
        if set(data) != expected:
            missing, unknown = sorted(expected - set(data)), sorted(map(str, set(data) - expected))
            faults = [f"missing {missing}"] * bool(missing) + [f"unknown {unknown}"] * bool(unknown)
            raise FileFormatError(
                f"the contract is not whole: {', '.join(faults)}; the file is damaged, or of another version of this "
                f"library: save the adapter again, or install the version that wrote it"
            )
        if (data["centring"] == "mean") != (mean is not None):
            raise FileFormatError(
                f"the contract says centring {data['centring']!r}, but the mean vector is "
                f"{'there' if mean is not None else 'missing'}; the file is damaged, save the adapter again"
            )
        if data["chat"] not in (True, False, None):
            raise FileFormatError(f"expected chat of true, false or null in the contract, got {data['chat']!r:.80}")
        values = {key: value for key, value in data.items() if key != "centring"}
        site = values["site"] = parse_place(data["site"]) if data["site"] else None
        width = data["d_model"] * (len(site.sites) if site else 1)
        if mean is not None and mean.shape != (width,):
            raise FileFormatError(f"expected a mean vector of shape ({width},), got {tuple(mean.shape)}")
        values["threshold"] = EvidenceThreshold(**data["threshold"]) if data["threshold"] else None
        values["block_signs"] = tuple(map(int, data["block_signs"]))
        if len(data["more"]) != len(more_means):
            raise FileFormatError(
                f"the contract names {len(data['more'])} further places, and there are means of {len(more_means)}; the "
                f"file is damaged, save the adapter again"
            )
        values["more"] = tuple(parse_reading_place(x, m, data["d_model"]) for x, m in zip(data["more"], more_means))
        values["confidence"] = tuple(ConfidenceModel.from_dict(model) for model in data["confidence"])
        if data["way_back"] is None and way_back:
            raise FileFormatError(
                f"the contract names no way back, and there are tensors of one, {', '.join(sorted(way_back))}; the "
                f"file is damaged, save the adapter again"
            )
        if data["way_back"] is not None:
            values["way_back"] = parse_way_back(data["way_back"], way_back or {}, data["d_model"], width)
        values["probe"] = parse_probe(data["probe"]) if data["probe"] is not None else None
        values["soft_prompt"] = SoftPrompt.from_dict(data["soft_prompt"]) if data["soft_prompt"] else None
        return settings_from(cls, {**values, "mean": mean}, "the contract")


def same_blocks(these: Sequence[int], others: Sequence[int]) -> bool:
    """Whether two `ModelFacts.block_signs` may be of the same weights.

    They are not if both are known and differ by more than what float16 rounds to zero.
    """
    if not these or not others:
        return True
    return len(these) == len(others) and all(abs(x - y) <= 2 + 1e-5 * max(x, y) for x, y in zip(these, others))


def library_versions() -> dict[str, str]:
    """Versions of the libraries whose numbers an adapter depends on."""
    import torch  # only here: a contract is read without it

    versions = {"torch": str(torch.__version__)}
    for name in ("interp-toolkit", "transformer-lens", "transformers"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
