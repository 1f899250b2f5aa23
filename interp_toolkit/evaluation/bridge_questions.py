"""Groups of two-hop and single-hop questions, and the grids of their hidden states, cached shard by shard."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import zip_longest
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from interp_toolkit import activations, spans
from interp_toolkit.activations import site_means
from interp_toolkit.adapters import Adapter
from interp_toolkit.bridges import grid, names, twohop
from interp_toolkit.bridges.grid import Grid, describe_grid
from interp_toolkit.bridges.twohop import FAILED, KEPT, SHORTCUT, TwoHop, answers_hops, balanced_sample
from interp_toolkit.cache import JsonCache
from interp_toolkit.centering import Means
from interp_toolkit.evaluation.context import SEED, EvalContext
from interp_toolkit.sites import Place, Site, SiteStack

TWO_HOP, ONE_HOP = "two-hop", "one-hop"
PLAIN, CHAT = "plain", "chat"
RIGHT = "right"
_CHAT_PROMPT = "Complete the statement: {}"
# Questions filtered, and prompts described, at a time and cached together: what an interruption can lose.
_FILTERED, _DESCRIBED = 128, 16


@dataclass(frozen=True, eq=False)
class Group:
    """Prompts that are measured together.

    Attributes:
        data: the name of their file, see `QuestionFile`.
        task: ``two-hop`` or ``one-hop``.
        reading: ``plain``, as text that goes on, or ``chat``, as a user's turn.
        known: what the model knows: ``kept`` (both hops and the question) or ``shortcut`` for two hops, ``right`` for
            one.
        rows: questions of the prompts.
        answers: the model's continuation of each prompt as plain text.
        others: rows of the same file that are in no group, for means.
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
        """The group's name in tables."""
        chat = f" {CHAT}" if self.reading == CHAT else ""
        return f"{self.data} {self.task}{chat} {self.known}"

    def prompt(self, row: TwoHop) -> str:
        """The prompt of a row."""
        text = row.twohop if self.task == TWO_HOP else row.hop1
        return _CHAT_PROMPT.format(text) if self.reading == CHAT else text

    @cached_property
    def forms(self) -> dict[str, list[str]]:
        """Prompts of the other rows, by form."""
        by_form: dict[str, list[str]] = defaultdict(list)
        for prompt, form in {self.prompt(row): form_of(row, self.task) for row in self.others}.items():
            by_form[form].append(prompt)
        return dict(by_form)

    def alike(self, row: TwoHop, limit: int) -> list[str]:
        """Prompts to take the mean over: others of the same form, or of all forms in turn where these are few."""
        same = self.forms.get(form_of(row, self.task), [])
        if len(same) < limit // 2:
            same = [prompt for turn in zip_longest(*self.forms.values()) for prompt in turn if prompt is not None]
        return same[:limit]


def form_of(row: TwoHop, task: str) -> str:
    """The type that prompts of the same wording share."""
    return row.type if task == TWO_HOP else row.type.rpartition("->")[0]


def filter_questions(context: EvalContext, rows: Sequence[TwoHop]) -> pd.DataFrame:
    """Which questions the model answers, see `answers_hops`; cached shard by shard."""
    verdicts: list[dict[str, Any]] = []
    cache, key = JsonCache("hops"), context.key(names, twohop)
    for start in tqdm(range(0, len(rows), _FILTERED), desc="filtering", unit="shard", disable=not context.progress):
        shard = rows[start : start + _FILTERED]
        verdicts += cache.get(
            [*key, [asdict(row) for row in shard]],
            lambda shard=shard: answers_hops(context.model, shard).to_dict("records"),
        )
    return pd.DataFrame(verdicts)


def make_groups(
    data: str,
    rows: Sequence[TwoHop],
    candidates: Sequence[TwoHop],
    verdicts: pd.DataFrame,
    limits: Mapping[str, int],
    tuned: int,
    chat: bool,
) -> tuple[list[Group], Group]:
    """Divide one file into groups, and a separate group on which settings may be chosen.

    Args:
        data: the file's name.
        rows: all rows of the file.
        candidates: the rows that were filtered.
        verdicts: of the candidates, see `answers_hops`.
        limits: prompts per group, by `Group.known`; for two hops those with a hidden bridge come first.
        tuned: prompts of the separate group. Where there are too few, as in a trial, other groups have them too.
        chat: whether to read the questions that the model answers as a user's turn too, as the paper does.
    """
    answers = dict(zip(candidates, zip(verdicts["twohop_answer"], verdicts["hop1_answer"])))
    measured = [row for row in zip(candidates, verdicts["verdict"], verdicts["hop1"]) if row[1] != FAILED]
    # Several questions have the same first hop, which is read once; those that the model knows come first.
    hops = sorted({row.hop1: (row, known) for row, _, known in measured}.values(), key=lambda pair: not pair[1])
    separate = [row for row, _ in hops[:tuned]]
    remaining = hops[tuned:] if len(hops) > 2 * tuned else hops

    def is_named(row: TwoHop) -> bool:
        return row.bridge.hinted_in(f"{row.twohop}\n{answers[row][0]}")

    chosen = {
        (TWO_HOP, KEPT): [row for row, verdict, _ in measured if verdict == KEPT],
        (TWO_HOP, SHORTCUT): [row for row, verdict, _ in measured if verdict == SHORTCUT],
        (ONE_HOP, RIGHT): [row for row, known in remaining if known],
    }
    # Only hidden bridges count.
    chosen = {
        (task, known): (sorted(members, key=is_named) if task == TWO_HOP else members)[: limits[known]]
        for (task, known), members in chosen.items()
    }
    used = {text for members in [*chosen.values(), separate] for row in members for text in (row.hop1, row.twohop)}
    unused = [row for row in rows if row.hop1.strip() and row.twohop.strip() and not {row.hop1, row.twohop} & used]
    others = tuple(balanced_sample(unused, len(unused), SEED))

    def group(task: str, known: str, reading: str, members: Sequence[TwoHop]) -> Group:
        continuations = tuple(answers[row][0 if task == TWO_HOP else 1] for row in members)
        return Group(data, task, reading, known, tuple(members), continuations, others)

    groups = [group(task, known, PLAIN, members) for (task, known), members in chosen.items() if members]
    if chat and chosen[TWO_HOP, KEPT]:
        groups.append(group(TWO_HOP, KEPT, CHAT, chosen[TWO_HOP, KEPT]))
    return groups, group(ONE_HOP, RIGHT, PLAIN, separate)


class Grids:
    """Grids of groups, cached shard by shard; the mean of a prompt's form is subtracted from its vectors.

    Args:
        context: with the model.
        sites: the single sites that are read.
        positions: the last tokens of a prompt that are read.
        alike: prompts that a mean is taken over: others of the same form, or of all where half as many are not there.
    """

    def __init__(self, context: EvalContext, sites: Sequence[Site], positions: int, alike: int) -> None:
        self.sites = list(sites)
        self._context = context
        self._positions = positions
        self._alike = alike
        self._means: dict[tuple[str, ...], Means] = {}

    def describe(self, adapter: Adapter, group: Group, samples: int) -> Grid:
        """Describe a group's prompts at each site; an adapter of several sites reads its sites together.

        Args:
            adapter: with its contract.
            group: of prompts.
            samples: descriptions per cell.
        """
        context, cache = self._context, JsonCache("grids")
        key = context.key(activations, grid, spans, names, twohop)
        starts = tqdm(
            range(0, len(group.rows), _DESCRIBED), desc=group.name, unit="shard", disable=not context.progress
        )
        grids = []
        for start in starts:
            shard = slice(start, start + _DESCRIBED)
            settings = self._settings(adapter, group, shard, samples)
            grids.append(
                cache.get(
                    [*key, *settings],
                    lambda shard=shard: self._describe_shard(adapter, group, shard, samples).to_dict(),
                )
            )
        return Grid.join([Grid.from_dict(one) for one in grids])

    def _settings(self, adapter: Adapter, group: Group, shard: slice, samples: int) -> list[Any]:
        contract, rows = adapter.require_contract(), group.rows[shard]
        return [
            adapter.digest,
            contract.require_soft_prompt().to_dict(),
            str(contract.site),
            [str(site) for site in self.sites],
            group.reading,
            [group.prompt(row) for row in rows],
            [row.subject for row in rows],
            list(group.answers[shard]),
            [group.alike(row, self._alike) for row in rows],
            self._positions,
            samples,
            SEED,
        ]

    def _describe_shard(self, adapter: Adapter, group: Group, shard: slice, samples: int) -> Grid:
        site = adapter.require_contract().site
        rows, chat = group.rows[shard], group.reading == CHAT
        return describe_grid(
            self._context.model,
            [group.prompt(row) for row in rows],
            adapter,
            sites=None if isinstance(site, SiteStack) else self.sites,
            positions=self._positions,
            samples=samples,
            seed=SEED,
            chat=chat,
            center=[self._mean(group.alike(row, self._alike), chat, site) for row in rows],
            responses=None if chat else list(group.answers[shard]),
            subjects=[row.subject for row in rows],
        )

    def _mean(self, prompts: list[str], chat: bool, place: Place | None) -> Means:
        """The means of a form, at the sites that an adapter reads: for a stack at the sites of the stack."""
        if (key := (str(chat), *prompts)) not in self._means:
            self._means[key] = site_means(self._context.model, prompts, self.sites, chat=chat)
        means = self._means[key]
        return {site: means[site] for site in place.sites if site in means} if isinstance(place, SiteStack) else means
