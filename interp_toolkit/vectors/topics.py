"""Contrastive topic vectors: the residual stream after a question about a topic, less what it always holds."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from interp_toolkit.activations import read_activations
from interp_toolkit.errors import FileFormatError, InterpToolkitError
from interp_toolkit.files import cache_folder, whole_file
from interp_toolkit.models import model_facts
from interp_toolkit.pairs import VectorLabelPairs
from interp_toolkit.sites import Site, SiteLike

PROMPT = "Tell me about {title}."
# Titles read and kept on disk at a time; what an interruption can lose.
_SHARD = 1000


def topic_vectors(model: Any, titles: Sequence[str], site: SiteLike, *, progress: bool = False) -> Tensor:
    """Raw residual streams at the last token of the chat-templated prompt ``Tell me about {title}.``

    They are read in shards that are kept in the cache folder, so that an interrupted reading goes on.

    Args:
        model: the hooked model.
        titles: topics.
        site: where to read.
        progress: whether to show a bar.

    Returns:
        float32 [titles, d_model], not centred.

    Raises:
        InterpToolkitError: an empty title, or a site that the model does not have.
    """
    site = Site.parse(site)
    facts = model_facts(model)
    dtype = str(next(model.parameters()).dtype)
    parts = []
    shards = [titles[i : i + _SHARD] for i in range(0, len(titles), _SHARD)]
    for shard in tqdm(shards, desc="topic vectors", unit="shard", disable=not progress):
        for title in shard:
            if not title.strip():
                raise InterpToolkitError("a topic title is empty; leave it out")
        told = json.dumps([facts.fingerprint, facts.revision, dtype, str(site), PROMPT, list(shard)])
        kept = cache_folder() / "topics" / f"{hashlib.sha256(told.encode()).hexdigest()[:32]}.pt"
        if not kept.exists():
            vectors = read_activations(model, [PROMPT.format(title=title) for title in shard], site).vectors
            with whole_file(kept) as draft:
                torch.save(vectors, draft)
        parts.append(torch.load(kept, weights_only=True))
    return torch.cat(parts) if parts else torch.empty(0, facts.d_model)


def topic_pairs(
    model: Any,
    titles: Sequence[str],
    site: SiteLike,
    *,
    splits: Sequence[str] | None = None,
    val_fraction: float = 0.1,
    seed: int = 0,
    progress: bool = False,
) -> VectorLabelPairs:
    """Pairs of contrastive topic vectors and their titles, centred by the mean over the training topics.

    arXiv 2602.10352, section 3; without centring topic adapters lose almost everything.

    Args:
        model: the hooked model.
        titles: topics; each is its vector's label.
        site: where to read.
        splits: ``"train"`` or ``"val"`` a title; by default ``val_fraction`` of them is drawn by ``seed``.

    Raises:
        InterpToolkitError: an empty title, no training topic, or a site that the model does not have.

    Example:
        >>> pairs = topic_pairs(model, ["Baseball", "Poland", ...], "blocks.23.hook_resid_post")
    """
    facts = model_facts(model)
    vectors = topic_vectors(model, titles, site, progress=progress)
    raw = VectorLabelPairs.build(vectors, titles, splits=splits, val_fraction=val_fraction, seed=seed)
    train = torch.tensor([split == "train" for split in raw.splits])
    if not train.any():
        raise InterpToolkitError(f"expected at least one training topic among {len(titles)}, got none")
    mean = raw.vectors[train].mean(0)
    origin = dict(model=facts.model_id, revision=facts.revision, prompt=PROMPT, source="contrastive topic vectors")
    return VectorLabelPairs.build(
        raw.vectors - mean, titles, splits=raw.splits, site=Site.parse(site), mean=mean, origin=origin
    )


def read_titles(path: str | Path) -> tuple[list[str], list[str] | None]:
    """Titles, and their splits where every row has one, from a file.

    Args:
        path: JSON Lines with ``title`` and perhaps ``split``, or plain text with a title a line; either may be gzipped.

    Raises:
        FileFormatError: missing, cut off, or a row without a title; the text names the row.
    """
    path = Path(path).expanduser()
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as stream:
            lines = [line.rstrip("\n") for line in stream]
    except FileNotFoundError:
        raise FileFormatError(f"expected a file of topic titles at {path}, and there is none") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise FileFormatError(f"the file of topic titles {path} is damaged: {error}") from error
    if ".json" not in path.name:
        return [line for line in lines if line.strip()], None
    titles, splits = [], []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            titles.append(row["title"])
            splits.append(row.get("split"))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FileFormatError(f"{path}, line {number}: expected a JSON object with a title: {error}") from error
    return titles, (splits if titles and all(splits) else None)
