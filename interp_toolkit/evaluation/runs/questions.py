"""Groups of two-hop and single-hop questions, and the grids of their hidden states, kept shard by shard."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from interp_toolkit import activations, spans
from interp_toolkit import activations as means
from interp_toolkit.activations import site_means
from interp_toolkit.adapters import Adapter
from interp_toolkit.bridges import grid, names, twohop
from interp_toolkit.bridges.grid import Grid, describe_grid
from interp_toolkit.bridges.twohop import FAILED, KEPT, SHORTCUT, TwoHop, answers_hops, balanced_sample
from interp_toolkit.cache import cache_folder
from interp_toolkit.centering import Means
from interp_toolkit.evaluation.bench import SEED, Bench, code_digest
from interp_toolkit.files import sha256_of, whole_file
from interp_toolkit.models import weights_key
from interp_toolkit.sites import Place, Site, SiteStack

TWO_HOP, ONE_HOP = "two-hop", "one-hop"
PLAIN, CHAT = "plain", "chat"
RIGHT = "right"
_CHAT_PROMPT = "Complete the statement: {}"
# Questions filtered, and prompts described, at a time and kept on disk: what an interruption can lose.
_FILTERED, _DESCRIBED = 128, 16


@dataclass(frozen=True, eq=False)
class Group:
    """Prompts that are measured together.

    Attributes:
        data: the name of their file.
        task: ``two-hop`` or ``one-hop``.
        reading: ``plain``, as text that goes on, or ``chat``, as a user's turn.
        known: whether the model knows: ``kept`` (both hops and the question) or ``shortcut`` of two hops, ``right`` of
            one.
        rows: of the prompts.
        answers: how the model goes on behind each, read plainly.
        others: rows of the same file that no group has, for means.
    """

    data: str
    task: str
    reading: str
    known: str
    rows: tuple[TwoHop, ...]
    answers: tuple[str, ...]
    others: tuple[TwoHop, ...]

    @property
    def name(self) -> str:
        """What it is called in tables."""
        chat = f" {CHAT}" if self.reading == CHAT else ""
        return f"{self.data} {self.task}{chat} {self.known}"

    def prompt(self, row: TwoHop) -> str:
        """What is read of a row."""
        text = row.twohop if self.task == TWO_HOP else row.hop1
        return _CHAT_PROMPT.format(text) if self.reading == CHAT else text

    @cached_property
    def forms(self) -> dict[str, list[str]]:
        """Prompts of the other rows, by form."""
        made: dict[str, list[str]] = defaultdict(list)
        for prompt, form in {self.prompt(row): form_of(row, self.task) for row in self.others}.items():
            made[form].append(prompt)
        return dict(made)

    def like(self, row: TwoHop, most: int) -> list[str]:
        """Prompts to take the mean of: others of the same form, or of all forms in turn where these are few."""
        same = self.forms.get(form_of(row, self.task), [])
        if len(same) < most // 2:
            same = [prompt for turn in zip_longest(*self.forms.values()) for prompt in turn if prompt is not None]
        return same[:most]


def form_of(row: TwoHop, task: str) -> str:
    """What prompts of the same wording share."""
    return row.type if task == TWO_HOP else row.type.rpartition("->")[0]


def filter_questions(bench: Bench, rows: Sequence[TwoHop]) -> pd.DataFrame:
    """What the model gets right, see `answers_hops`; kept shard by shard."""
    parts = []
    for start in tqdm(range(0, len(rows), _FILTERED), desc="filtering", unit="shard", disable=not bench.progress):
        shard = rows[start : start + _FILTERED]
        path = _file(bench, "hops", (names, twohop), [asdict(row) for row in shard])
        if (told := _kept(path)) is None:
            told = answers_hops(bench.model, shard).to_dict("records")
            _write(path, told)
        parts += told
    return pd.DataFrame(parts)


def make_groups(
    data: str,
    rows: Sequence[TwoHop],
    asked: Sequence[TwoHop],
    verdicts: pd.DataFrame,
    most: Mapping[str, int],
    tuned: int,
    chat: bool,
) -> tuple[list[Group], Group]:
    """The groups of one file, and one apart on which settings may be chosen.

    Args:
        data: the file's name.
        rows: all of it.
        asked: those that were filtered.
        verdicts: of these, see `answers_hops`.
        most: prompts a group, by `Group.known`; of two hops first those whose bridge is hidden.
        tuned: prompts of the group apart. Where there are too few to spare, as in a trial, others have them too.
        chat: also read the kept questions as a user's turn, as the paper does.
    """
    answers = dict(zip(asked, zip(verdicts["twohop_answer"], verdicts["hop1_answer"])))
    told = [row for row in zip(asked, verdicts["verdict"], verdicts["hop1"]) if row[1] != FAILED]
    # Several questions have the same first hop, which is read once; what the model knows first.
    hops = sorted({row.hop1: (row, known) for row, _, known in told}.values(), key=lambda pair: not pair[1])
    spare = [row for row, _ in hops[:tuned]]
    left = hops[tuned:] if len(hops) > 2 * tuned else hops

    def shows(row: TwoHop) -> bool:
        return row.bridge.hinted_in(f"{row.twohop}\n{answers[row][0]}")

    chosen = {
        (TWO_HOP, KEPT): [row for row, verdict, _ in told if verdict == KEPT],
        (TWO_HOP, SHORTCUT): [row for row, verdict, _ in told if verdict == SHORTCUT],
        (ONE_HOP, RIGHT): [row for row, known in left if known],
    }
    # Only hidden bridges count.
    chosen = {
        (task, known): (sorted(own, key=shows) if task == TWO_HOP else own)[: most[known]]
        for (task, known), own in chosen.items()
    }
    taken = {text for own in [*chosen.values(), spare] for row in own for text in (row.hop1, row.twohop)}
    whole = [row for row in rows if row.hop1.strip() and row.twohop.strip() and not {row.hop1, row.twohop} & taken]
    others = tuple(balanced_sample(whole, len(whole), SEED))

    def group(task: str, known: str, reading: str, own: Sequence[TwoHop]) -> Group:
        behind = tuple(answers[row][0 if task == TWO_HOP else 1] for row in own)
        return Group(data, task, reading, known, tuple(own), behind, others)

    made = [group(task, known, PLAIN, own) for (task, known), own in chosen.items() if own]
    if chat and chosen[TWO_HOP, KEPT]:
        made.append(group(TWO_HOP, KEPT, CHAT, chosen[TWO_HOP, KEPT]))
    return made, group(ONE_HOP, RIGHT, PLAIN, spare)


class Grids:
    """Grids of groups, kept in the cache folder shard by shard; from each prompt the mean of its form is taken off.

    Args:
        bench: with the model.
        sites: the single sites that are read.
        positions: the last tokens of a prompt that are read.
        alike: prompts that a mean is taken over: others of the same form, or of all where half as many are not there.
    """

    def __init__(self, bench: Bench, sites: Sequence[Site], positions: int, alike: int) -> None:
        self.sites = list(sites)
        self._bench = bench
        self._positions = positions
        self._alike = alike
        self._means: dict[tuple[str, ...], Means] = {}

    def describe(self, adapter: Adapter, group: Group, samples: int) -> Grid:
        """What an adapter says of a group, at each site; one of several sites reads its own together."""
        starts = tqdm(
            range(0, len(group.rows), _DESCRIBED), desc=group.name, unit="shard", disable=not self._bench.progress
        )
        return Grid.join([self._shard(adapter, group, slice(i, i + _DESCRIBED), samples) for i in starts])

    def _shard(self, adapter: Adapter, group: Group, own: slice, samples: int) -> Grid:
        contract = adapter.require_contract()
        soft_prompt = contract.require_soft_prompt()
        rows, chat = group.rows[own], group.reading == CHAT
        like = [group.like(row, self._alike) for row in rows]
        prompts = [group.prompt(row) for row in rows]
        subjects = [row.subject for row in rows]
        responses = None if chat else list(group.answers[own])
        by = [adapter.digest, soft_prompt.to_dict(), str(contract.site), [str(site) for site in self.sites]]
        asked = [*by, chat, prompts, subjects, responses, like, self._positions, samples]
        path = _file(self._bench, "grids", (activations, grid, means, spans, twohop), asked)
        if (told := _kept(path)) is not None:
            return Grid.from_dict(told)
        made = describe_grid(
            self._bench.model,
            prompts,
            adapter,
            sites=None if isinstance(contract.site, SiteStack) else self.sites,
            positions=self._positions,
            samples=samples,
            seed=SEED,
            chat=chat,
            means=[self._mean(others, chat, contract.site) for others in like],
            responses=responses,
            subjects=subjects,
        )
        _write(path, made.to_dict())
        return made

    def _mean(self, prompts: list[str], chat: bool, site: Place | None) -> Means:
        """The means of a form, at the sites that an adapter reads: its own where it reads several together."""
        if (key := (str(chat), *prompts)) not in self._means:
            self._means[key] = site_means(self._bench.model, prompts, self.sites, chat=chat)
        means = self._means[key]
        return {one: means[one] for one in site.sites if one in means} if isinstance(site, SiteStack) else means


def _file(bench: Bench, what: str, modules: Sequence[ModuleType], asked: Any) -> Path:
    """Where a shard is kept: named for all that decides it, the code that makes it included."""
    code = [code_digest(), *(sha256_of(Path(str(module.__file__))) for module in modules)]
    facts = [bench.versions, weights_key(bench.model), SEED]
    name = hashlib.sha256(json.dumps([code, facts, asked]).encode()).hexdigest()[:32]
    return cache_folder() / "bridges" / what / f"{name}.json"


def _kept(path: Path) -> Any:
    """What a shard's file holds; None if it is not there or not whole, so that it is made anew."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _write(path: Path, told: Any) -> None:
    with whole_file(path) as draft:
        draft.write_text(json.dumps(told, ensure_ascii=False))
