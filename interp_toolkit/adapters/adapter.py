"""The adapter: a small trained map from a vector to a soft token."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp_toolkit.adapters import files, hub, published
from interp_toolkit.adapters.config import AdapterConfig
from interp_toolkit.adapters.display import display_rows
from interp_toolkit.adapters.kinds import KINDS, class_of_kind
from interp_toolkit.adapters.reading import read_adapter
from interp_toolkit.adapters.stored import StoredAdapter, adapter_digest
from interp_toolkit.adapters.uncalibrated import uncalibrated
from interp_toolkit.contract import Contract, ModelFacts
from interp_toolkit.deprecation import warn_renamed
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.soft_prompt import SoftPrompt
from interp_toolkit.tables import html_table
from interp_toolkit.torch_defaults import plain_defaults

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, EvalResult

    from interp_toolkit.results import Table

_EPSILON = 1e-8
# Endings of the files that `save_published` writes.
_PUBLISHED = (".safetensors", ".pt")
# Up to this width even a full matrix is small enough to make: 64 MB.
_SMALL = 4096


class Adapter(nn.Module):
    """A map f from vectors to soft tokens, in float32, with its config and its contract.

    Our kinds stand in `interp_toolkit.adapters.family`, each with its formula. All are sums of at most three terms:
    s x^, a matrix of full or low rank times x^, and a bias b; what a kind lacks it has no parameter for.

    A kind of your own is a subclass with a ``kind``, `make_parameters` and `map_directions`; once its class is defined
    it is created, trained, saved and loaded as ours are.

    Attributes:
        kind: its name in configs and files.
        takes_rank: whether the kind has a rank, which its config then needs.
        takes_several: whether it can map vectors of several sites, or to several soft tokens.
        settings: further settings of the kind with their defaults, which JSON can hold; an adapter has its values in
            ``config.settings``.
        config: its shape and start.
        contract: what it was trained with; None before training.
        metadata: facts of its training run that travel with it, as strings.

    Example:
        >>> adapter = Adapter.create("scalar_affine", d_model=576)
        >>> adapter.parameter_count, adapter(torch.randn(3, 576)).shape
        (577, torch.Size([3, 576]))

        A kind of one's own, with a factor for each coordinate:

        >>> class Diagonal(Adapter):
        ...     kind = "diagonal"
        ...     def make_parameters(self):
        ...         self.gain = nn.Parameter(torch.full((self.config.d_model,), self.config.init_scale))
        ...     def map_directions(self, x, scale):
        ...         return self.gain * x * scale
        >>> adapter = Adapter.create("diagonal", d_model=576)
    """

    kind: ClassVar[str]
    takes_rank: ClassVar[bool] = False
    takes_several: ClassVar[bool] = False
    settings: ClassVar[Mapping[str, Any]] = {}

    log_scale: nn.Parameter
    bias: nn.Parameter
    U: nn.Parameter
    V: nn.Parameter
    weight: nn.Parameter

    def __init_subclass__(cls) -> None:
        kind = cls.__dict__.get("kind")
        if not isinstance(kind, str) or not kind:
            raise InterpToolkitError(f'{cls.__qualname__} names no kind of its own; write kind = "..." in the class')
        if taken := sorted({field.name for field in fields(AdapterConfig)} & set(cls.settings)):
            raise InterpToolkitError(
                f"{cls.__qualname__} declares the setting {', '.join(taken)}, which every kind has; choose another name"
            )
        other = KINDS.get(kind)
        # A class may be defined again, as in a notebook's cell that is run twice.
        if other is not None and (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
            raise InterpToolkitError(
                f"the adapter kind {kind!r} is that of {other.__module__}.{other.__qualname__}; choose another for "
                f"{cls.__module__}.{cls.__qualname__}"
            )
        KINDS[kind] = cls

    def __init__(self, config: AdapterConfig, contract: Contract | None = None) -> None:
        super().__init__()
        self.config = config
        self.contract = contract
        self.metadata: dict[str, str] = {}
        self.make_parameters()

    def make_parameters(self) -> None:
        """Set the parameters of this kind as attributes, at their start, by ``self.config``.

        Random starts come from torch's generator, which `create` seeds. In training, ``log_scale`` takes the learning
        rate of scales, other parameters of one axis that of biases, and all with more axes that of matrices.
        """
        raise NotImplementedError

    def map_directions(self, x: Tensor, scale: Tensor | float) -> Tensor:
        """Return the soft tokens of directions.

        Args:
            x: vectors as `directions` gives them, [..., sites * d_model].
            scale: a factor on x for sweeps, a number or [..., 1]; a bias is left as it is.

        Returns:
            Soft tokens, [..., tokens * d_model], several one after the other.
        """
        raise NotImplementedError

    @classmethod
    def parameter_shapes(cls, config: AdapterConfig) -> dict[str, tuple[int, ...]]:
        """The shapes of an adapter's parameters by name, for which no memory is taken where it could be much."""
        # A damaged config may ask for any size. Random numbers without memory import torch's compiler: half a second.
        device = "cpu" if max(config.width, config.d_model * config.tokens) <= _SMALL else "meta"
        with torch.random.fork_rng(devices=[]), torch.device(device):
            return {name: tuple(value.shape) for name, value in cls(config).state_dict().items()}

    @classmethod
    def create(cls, kind: str, d_model: int, *, seed: int = 0, **settings: Any) -> Adapter:
        """An untrained adapter.

        Args:
            kind: ``identity``, ``scale``, ``bias_only``, ``scalar_affine``, ``low_rank``, ``scalar_affine_low_rank``,
                ``full_rank``, or the kind of a class of your own.
            d_model: width of the residual stream.
            seed: of the random start, where there is one.
            settings: the further fields of `AdapterConfig`: ``rank``, ``sites``, ``tokens``, ``init_scale``, ..., and
                the settings that the kind declares.

        Returns:
            The adapter, without a contract.

        Raises:
            InterpToolkitError: an unknown kind or setting, or a rank where none belongs.
        """
        return cls.from_config(AdapterConfig.from_dict(dict(kind=kind, d_model=d_model, **settings)), seed=seed)

    @classmethod
    @plain_defaults()
    def from_config(cls, config: AdapterConfig, contract: Contract | None = None, seed: int = 0) -> Adapter:
        """Create an untrained adapter of this config.

        Args:
            config: its kind, shape and start.
            contract: what it is for; None before training.
            seed: of the random start, where there is one.

        Returns:
            The adapter.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return class_of_kind(config.kind)(config, contract)

    def forward(
        self, vectors: Float[Tensor, "*n width"], scale: Float[Tensor, "*n 1"] | float = 1.0
    ) -> Float[Tensor, "*tokens d_model"]:
        """Soft tokens, float32, of centred vectors or directions: [n, d_model], or [n, tokens, d_model] where several.

        Args:
            vectors: one vector or many, of width d_model for each site.
            scale: a factor on the (normalised) vector, for sweeps; the bias is left as it is.

        Raises:
            InterpToolkitError: another width, or a number that is not finite.
        """
        out = self.map_directions(self.directions(vectors), scale)
        expected = (*vectors.shape[:-1], self.config.tokens * self.config.d_model)
        if out.shape != expected:
            raise InterpToolkitError(
                f"expected soft tokens of shape {expected} from {type(self).__qualname__}.map_directions, got "
                f"{tuple(out.shape)}"
            )
        return out.unflatten(-1, (self.config.tokens, self.config.d_model)) if self.config.tokens > 1 else out

    def directions(self, vectors: Float[Tensor, "*n width"]) -> Float[Tensor, "*n width"]:
        """What the map is applied to: x^ where the adapter normalises, each site's vector alone, and x otherwise.

        Raises:
            InterpToolkitError: as `forward`.
        """
        config = self.config
        if vectors.ndim not in (1, 2) or vectors.shape[-1] != config.width:
            many = f" at {config.sites} sites" if config.sites > 1 else ""
            raise InterpToolkitError(
                f"expected vectors of shape (n, {config.width}) or ({config.width},), "
                f"got {tuple(vectors.shape)}; the adapter is for d_model {config.d_model}{many}"
            )
        x = vectors.float()
        if not torch.isfinite(x).all():
            bad = (~torch.isfinite(x)).any(-1).reshape(-1).nonzero()[0].item()
            raise InterpToolkitError(f"expected finite numbers, but vector {bad} holds NaN or infinity; leave it out")
        if config.normalize:
            by_site = x.unflatten(-1, (config.sites, config.d_model))
            x = (by_site / (by_site.norm(dim=-1, keepdim=True) + _EPSILON)).flatten(-2)
        return x

    @plain_defaults()
    def null(self) -> Float[Tensor, "*tokens d_model"]:
        """The soft token of the null vector: what the adapter says about nothing."""
        parameter = next(self.parameters(), None)
        zero = torch.zeros(self.config.width, device=parameter.device if parameter is not None else None)
        return self(zero)

    def require_contract(self, facts: ModelFacts | None = None) -> Contract:
        """The contract of a trained adapter.

        Args:
            facts: of the model that the adapter is to be used with, which the contract is then checked against.

        Raises:
            InterpToolkitError: the adapter has not been trained.
            ContractError: it was trained for another model, see `Contract.check_model`.
        """
        if self.contract is None:
            raise InterpToolkitError("the adapter has no contract, so it has not been trained; see train_adapter")
        if facts is not None:
            self.contract.check_model(facts)
        return self.contract

    def with_soft_prompt(self, soft_prompt: SoftPrompt) -> Adapter:
        """Return this adapter, sharing its weights, for another soft prompt than it was trained with.

        Thresholds, confidence and probe are left out, since they were measured with the old soft prompt.

        Raises:
            InterpToolkitError: the adapter has not been trained.
        """
        contract = replace(uncalibrated(self.require_contract()), soft_prompt=soft_prompt)
        adapter = copy.copy(self)
        adapter.contract = contract
        return adapter

    @property
    def parameter_count(self) -> int:
        """Number of trained numbers."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that name these weights, for results files."""
        parameters = ((name, value.cpu().numpy()) for name, value in self.state_dict().items())
        return adapter_digest(self.config, self.settings, parameters)

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write the adapter and its contract to a folder, whole or not at all.

        Args:
            folder: for ``adapter_config.json`` and ``adapter_model.safetensors``.
            dtype: of the numbers in the file; float16 takes half the space, int8 a quarter (matrices only, each column
                with a step of its own). They are read back as float32.

        Raises:
            InterpToolkitError: no contract yet, a folder of something else, or another dtype than float32, float16,
                bfloat16 and int8.
        """
        folder = Path(folder)
        if folder.suffix in _PUBLISHED:
            raise InterpToolkitError(f"expected a folder to save to, got {folder}; save_published writes such files")
        if dtype not in (torch.float32, torch.float16, torch.bfloat16, torch.int8):
            raise InterpToolkitError(f"expected a dtype of float32, float16, bfloat16 or int8, got {dtype}")
        files.write(self._stored(), folder, dtype)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        revision: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str | None = None,
        card: str | None = None,
        evaluation: Table | Sequence[EvalResult] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> CommitInfo:
        """Upload what `save_pretrained` writes, and a card, to the Hugging Face hub in one commit.

        Args:
            repo_id: ``"user/name"``; the repository is created where there is none.
            revision: a branch, created where there is none; the main one by default.
            private: whether others cannot see it; a repository that is there must be so already.
            token: of a user who may write; by default that of ``hf auth login`` or ``HF_TOKEN``.
            commit_message: title of the commit.
            card: text of ``README.md``; by default it is written from the contract and the evaluation.
            evaluation: a data frame or rows with ``measure``, ``value``, ``dataset`` and perhaps ``low``, ``high``,
                ``n`` and ``split``, or a list of ``huggingface_hub.EvalResult``.
            dtype: as in `save_pretrained`.

        Returns:
            The commit's URL, with its hash as ``oid``, which `from_pretrained` takes as ``revision``.

        Raises:
            InterpToolkitError: no contract, another evaluation, or the hub refuses or cannot be reached.

        Example:
            >>> table = recall_table(ranks).assign(dataset="titles of articles", split="val")
            >>> adapter.push_to_hub("user/my-adapter", evaluation=table)
        """
        draft = hub.Draft(self, dtype, card, evaluation)
        return hub.push(draft, repo_id, revision, private=private, token=token, commit_message=commit_message)

    def save_published(self, path: str | Path) -> None:
        """Write the adapter as one file in a format of the paper's authors, in float32.

        A reading site, a mean vector and a threshold have no place in it: `save_pretrained` writes those too.

        Args:
            path: a ``.safetensors`` file (``selfie_adapter_v1``) or a ``.pt`` file (a checkpoint of their trainer).

        Raises:
            InterpToolkitError: another ending, a kind that the formats do not know, or several sites or soft tokens.
        """
        if Path(path).suffix not in _PUBLISHED:
            raise InterpToolkitError(f"expected a path that ends in {' or '.join(_PUBLISHED)}, got {path}")
        published.write(self._stored(), Path(path))

    def _stored(self) -> StoredAdapter:
        parameters = {name: value.float().cpu().contiguous().numpy() for name, value in self.state_dict().items()}
        return StoredAdapter(self.config, parameters, self.contract, self.metadata)

    def save(self, path: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Deprecated: use `save_pretrained` for a folder and `save_published` for a file."""
        if Path(path).suffix not in _PUBLISHED:
            warn_renamed("Adapter.save", "Adapter.save_pretrained")
            self.save_pretrained(path, dtype)
            return
        warn_renamed("Adapter.save", "Adapter.save_published")
        if dtype != torch.float32:
            raise InterpToolkitError(f"expected a dtype of float32 in a published format, got {dtype}")
        self.save_published(path)

    @classmethod
    def load(cls, path: str | Path, *, revision: str | None = None) -> Adapter:
        """Deprecated: use `from_pretrained`."""
        warn_renamed("Adapter.load", "Adapter.from_pretrained")
        return cls.from_pretrained(path, revision=revision)

    @classmethod
    @plain_defaults()
    def from_pretrained(
        cls, path_or_repo: str | Path, filename: str | None = None, *, revision: str | None = None
    ) -> Adapter:
        """Read an adapter from this machine or from the Hugging Face hub.

        Nothing in the file is run: ``.pt`` files are read with ``weights_only=True``.

        Args:
            path_or_repo: an adapter folder, a published ``.safetensors`` or ``.pt`` file, or ``"org/name"`` on the hub;
                ``"org/name/file.safetensors"`` names a file there in one text, as on a command line.
            filename: a file or folder within it, where it holds several adapters.
            revision: branch, tag or commit on the hub.

        Returns:
            The adapter in evaluation mode, whose parameters take no gradient.

        Raises:
            FileFormatError: missing, damaged, of an unknown format, or of a kind whose class is not imported.

        Example:
            >>> Adapter.from_pretrained("my-adapter")
            >>> Adapter.from_pretrained("org/adapters", "wikipedia-scalar-affine.safetensors", revision="main")
        """
        stored = read_adapter(path_or_repo, filename, revision, as_tensor=torch.from_numpy)
        adapter = cls.from_config(stored.config, stored.contract)
        adapter.load_state_dict({name: torch.from_numpy(values) for name, values in stored.parameters.items()})
        adapter.metadata = dict(stored.metadata)
        return adapter.requires_grad_(False).eval()

    def extra_repr(self) -> str:
        """What `repr` says beside the name."""
        rank = f", rank={self.config.rank}" if self.config.rank else ""
        where = f", for {self.contract.model_id} at {self.contract.site}" if self.contract else ""
        many = "".join(f", {name}={count}" for name in ("sites", "tokens") if (count := getattr(self.config, name)) > 1)
        return (
            f"{self.config.kind}, d_model={self.config.d_model}{many}{rank}, {self.parameter_count:,} parameters{where}"
        )

    def _repr_html_(self) -> str:
        return html_table(["adapter", ""], display_rows(self).items())
