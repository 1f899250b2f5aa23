"""A whole training run as one YAML file: model, pairs, adapter, settings, and where the result goes."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from interp_toolkit.adapters import Adapter, AdapterConfig, truncated
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.models import as_hooked_model, backend_of, model_facts, shard_blocks
from interp_toolkit.pairs import VectorLabelPairs, read_topics, topic_pairs
from interp_toolkit.settings import naming, read_yaml, settings_from, with_new_names
from interp_toolkit.sites import Place, Site, SiteLike, SiteStack, parse_place
from interp_toolkit.soft_prompt import ANSWER, QUESTION, SoftPrompt
from interp_toolkit.torch_defaults import plain_defaults
from interp_toolkit.training.config import TrainConfig
from interp_toolkit.training.ranks import Ranks
from interp_toolkit.training.result import TrainResult
from interp_toolkit.training.train import train_adapter

_BLOCK = 4096  # vectors held at once


@dataclass(frozen=True)
class TopicSource:
    """Topic titles to make pairs of.

    Attributes:
        titles: file of titles (see `read_topics`).
        site: where their vectors are read: one site, or a list of several whose vectors stand side by side.
        train: how many training titles to take; None for all.
        val: how many validation titles to take; None for all.
        dev: how many training titles to hold out and validate on, in place of validation titles, which then choose
            nothing and stay for measuring; None for none.
        labels: largest number of labels per title: 1 for the title itself, more for its descriptions too, None for all.
        seed: of the order from which they are taken, and of the split where the file has none.
        chat: whether their prompt is a user's turn; None for that where the model has a chat template.
    """

    titles: str
    site: SiteLike | Sequence[SiteLike] | SiteStack
    train: int | None = None
    val: int | None = None
    dev: int | None = None
    labels: int | None = 1
    seed: int = 0
    chat: bool | None = None

    def __post_init__(self) -> None:
        self.place()
        for name in ("train", "val", "dev", "labels"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise InterpToolkitError(f"expected {name} of at least 1 in 'topics', got {value}")

    def place(self) -> Place:
        """Where the vectors are read.

        Raises:
            InterpToolkitError: no site, the same twice, or a text that names no site.
        """
        sites = self.site if isinstance(self.site, (list, tuple)) else parse_place(self.site).sites
        return Site.parse(sites[0]) if len(sites) == 1 else SiteStack(sites)


@dataclass(frozen=True)
class PromptSource:
    """The soft prompt to train with.

    Attributes:
        preset: ``"llama-3.1"`` or ``"qwen2.5"``, the texts of published adapters; None for the model's chat template.
        text: a plain text with ``{slot}`` in place of question and answer, see `SoftPrompt.for_text`; None for the one
            with a few examples, where the model has no chat template and nothing else is asked for.
        question: the user's turn, with ``{slot}``.
        answer: the beginning of the assistant's turn, likewise.
        site: where soft tokens are written.
        mode: ``"replace"`` or ``"add"``.
    """

    preset: str | None = None
    text: str | None = None
    question: str = QUESTION
    answer: str = ANSWER
    site: str = "hook_embed"
    mode: Literal["replace", "add"] = "replace"

    def __post_init__(self) -> None:
        Site.parse(self.site)
        if self.preset is not None:
            SoftPrompt.preset(self.preset)
        worded = (self.question, self.answer) != (QUESTION, ANSWER)
        if (self.preset is not None) + (self.text is not None) + worded > 1:
            raise InterpToolkitError("expected one of 'preset', 'text', and 'question' with 'answer', in 'soft_prompt'")

    def make(self, tokenizer: Any, tokens: int = 1, vocabulary: int | None = None) -> SoftPrompt:
        """Make the soft prompt in a model's vocabulary.

        Args:
            tokenizer: of the model.
            tokens: how many soft tokens the adapter makes.
            vocabulary: how many rows the model's embedding has; None for the tokenizer's own number.

        Returns:
            The soft prompt at its site.
        """
        if self.preset is not None:
            prompt = SoftPrompt.preset(self.preset)
        elif self.text is not None:
            prompt = SoftPrompt.for_text(tokenizer, self.text, tokens=tokens)
        elif (self.question, self.answer) == (QUESTION, ANSWER):
            prompt = SoftPrompt.for_tokenizer(tokenizer, tokens, vocabulary=vocabulary)
        else:
            prompt = SoftPrompt.for_chat(tokenizer, self.question, self.answer, tokens=tokens, vocabulary=vocabulary)
        return prompt.at(self.site, self.mode)


@dataclass(frozen=True)
class Recipe:
    """One training run.

    Attributes:
        output: folder of the run, see `train_adapter`.
        adapter: settings of `AdapterConfig`; d_model is the model's, sites those of the topics or pairs.
        model: as `load_model` takes it.
        dtype: of the model: float32, bfloat16, float16, or own for the checkpoint's; None for this hardware's default.
        topics: titles to make pairs of, or None.
        pairs: folder that `VectorLabelPairs.save` wrote, or None.
        soft_prompt: by default the paper's wording in the model's chat template.
        start: folder of a trained adapter to begin with instead of at random: one of the same shape, or a full-rank
            one, to whose soft tokens a low-rank adapter then begins as near as its rank allows (see `truncated`).
        shard: whether processes that train together hold a share of the model's blocks each, instead of the whole model
            (see `shard_blocks`). Each process first reads all of it into the CPU's memory. Vectors come from ``pairs``
            then, since they are read by one process.
        training: settings.
    """

    output: str
    adapter: Mapping[str, Any]
    model: str = "smollm2-135m"
    dtype: str | None = None
    topics: TopicSource | None = None
    pairs: str | None = None
    soft_prompt: PromptSource = field(default_factory=PromptSource)
    start: str | None = None
    shard: bool = False
    training: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        if (self.topics is None) == (self.pairs is None):
            raise InterpToolkitError("a training file names its pairs once: expected either 'topics' or 'pairs'")
        if self.shard and self.pairs is None:
            raise InterpToolkitError(
                "expected 'pairs' with 'shard', a folder of vectors that one process read (as with device_map='auto') "
                "and VectorLabelPairs.save wrote, got 'topics'"
            )
        # Checked now, with any width, rather than after the vectors have been read.
        sites = len(self.topics.place().sites) if self.topics else 1
        AdapterConfig.from_dict({"d_model": 10**6, "sites": sites, **self.adapter})

    @classmethod
    def read(cls, path: str | Path) -> Recipe:
        """Read a recipe from a YAML file.

        Raises:
            FileFormatError: missing, or not YAML.
            InterpToolkitError: an unknown key, a missing one, or a value out of range.
        """
        path = Path(path).expanduser()
        data = read_yaml(path, "a training file")
        with naming(path):
            if isinstance(data, dict):
                for key, kind in _PARTS.items():
                    if data.get(key) is not None:
                        data[key] = settings_from(kind, data[key], f"'{key}'")
            return settings_from(cls, data, "the training file")

    def with_training(self, **settings: Any) -> Recipe:
        """Return the same run with other training settings, by their new or old names."""
        where = "the training settings"
        changed = {**self.training.to_dict(), **with_new_names(TrainConfig, settings, where)}
        return replace(self, training=settings_from(TrainConfig, changed, where))

    @plain_defaults()
    def run(self, data: str | Path = ".", *, progress: bool = True) -> TrainResult:
        """Make the pairs and train; what an interrupted run has done is not done again.

        Args:
            data: folder that paths of titles and pairs are relative to.
            progress: whether to show bars.

        Returns:
            What the run leaves, as `train_adapter` returns it.
        """
        model = as_hooked_model(self.model, dtype=self.dtype, device="cpu" if self.shard else None)
        d_model = model_facts(model).d_model
        ranks = Ranks.joined()
        progress = progress and ranks.first
        # The vectors that the first process reads, the others find stored.
        with ranks.one_after_the_first():
            if self.pairs is not None:
                pairs = VectorLabelPairs.load(Path(data) / self.pairs)
            else:
                assert self.topics is not None
                pairs = _topic_pairs(model, self.topics, Path(data), progress)
        config = AdapterConfig.from_dict({"d_model": d_model, "sites": pairs.width // d_model or 1, **self.adapter})
        adapter = Adapter.from_config(config, seed=self.training.seed)
        if self.start is not None:
            adapter = _starting_adapter(Adapter.from_pretrained(self.start), config, pairs)
        if self.shard:
            shard_blocks(model)
        vocabulary = len(backend_of(model).embedding_weight)
        prompt = self.soft_prompt.make(model.tokenizer, config.tokens, vocabulary)
        return train_adapter(
            model, pairs, adapter, self.training, soft_prompt=prompt, folder=self.output, progress=progress
        )


def _starting_adapter(source: Adapter, config: AdapterConfig, pairs: VectorLabelPairs) -> Adapter:
    site = source.contract.site if source.contract else None
    if site is not None and site != pairs.site:
        raise InterpToolkitError(f"expected an adapter for vectors of {pairs.site} to start from, got one of {site}")
    train, digest = pairs.split("train"), source.digest
    if config.kind == "low_rank" and source.config.kind == "full_rank":
        rows = range(len(train))
        source = truncated(source, config.rank or 0, (train.gather(rows[i : i + _BLOCK]) for i in rows[::_BLOCK]))
    if source.config.to_dict() != config.to_dict():
        raise InterpToolkitError(f"expected an adapter of {config} to start from, got one of {source.config}")
    source.metadata = {"start": digest}
    return source.requires_grad_(True)


_PARTS = {"topics": TopicSource, "soft_prompt": PromptSource, "training": TrainConfig}


def _topic_pairs(model: Any, source: TopicSource, data: Path, progress: bool) -> VectorLabelPairs:
    topics = read_topics(data / source.titles, source.labels)
    rows = list(range(len(topics)))
    splits = topics.splits
    if splits is None:
        random.Random(source.seed).shuffle(rows)
        cut = source.val if source.val is not None else len(rows) // 10
        splits = ["train"] * len(rows)
        for row in rows[:cut]:
            splits[row] = "val"
    sides = {side: [row for row in rows if splits[row] == side] for side in ("train", "val")}
    for chosen in sides.values():
        random.Random(source.seed).shuffle(chosen)
    if source.dev is not None:
        sides = dict(train=sides["train"][: -source.dev], val=sides["train"][-source.dev :])
        splits = ["train"] * len(topics)
        for row in sides["val"]:
            splits[row] = "val"
    taken: list[int] = []
    for side, count in (("train", source.train), ("val", source.val)):
        if count is not None and count > len(sides[side]):
            raise InterpToolkitError(f"expected {count} {side} titles in {source.titles}, got {len(sides[side])}")
        taken += sides[side][:count]
    return topic_pairs(
        model,
        [topics.titles[row] for row in taken],
        source.place(),
        labels=[topics.labels[row] for row in taken],
        splits=[splits[row] for row in taken],
        chat=source.chat,
        progress=progress,
    )
