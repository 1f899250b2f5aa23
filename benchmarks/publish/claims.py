"""The paper's claims against the committed results: what it says, what is measured here, and a verdict by rule.

The notebooks in benchmarks/ show one claim each, and docs/claims.md has a line for each. A claim consists of checks,
each on one number with its 95% interval; a check holds where the whole interval lies on the right side. All checks: the
claim holds; some: in part; none: not at this size.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.arguments import RESULTS
from benchmarks.data import DATA
from benchmarks.sae.adapters import transfer_table
from benchmarks.topics.cells import CELLS, SIZES
from interp_toolkit.results import read_result
from interp_toolkit.statistics import proportion_interval

ROOT = RESULTS.parent.parent
_FULL_RANK, _FULL_RUN = (
    "benchmarks/configs/smollm2_four_layers_full_rank.yaml",
    "runs/smollm2_four_layers_full_rank/best",
)
HOLDS, IN_PART, FAILS, UNKNOWN = "holds", "holds in part", "does not hold at this size", "not measured"


@dataclass(frozen=True)
class Check:
    """One number and where it has to lie.

    Attributes:
        what: the name of the number.
        value: its estimate.
        low: the lower end of its 95% interval.
        high: the upper end.
        n: how many rows it is estimated from.
        needs: where it has to lie, in words.
        holds: whether it lies there.
    """

    what: str
    value: float
    low: float
    high: float
    n: int
    needs: str
    holds: bool


@dataclass(frozen=True, repr=False)
class Claim:
    """A claim of the paper.

    Attributes:
        says: the claim.
        paper: the paper's figure, and where it stands.
        differs: how the set-up here is another.
        commands: arguments of Python, in this order, that measure it; each takes ``--data FOLDER``.
        checks: by the results that are there.
        pending: how many more there will be, once all is measured.
    """

    says: str
    paper: str
    differs: str
    commands: tuple[tuple[str, ...], ...]
    checks: tuple[Check, ...]
    pending: int = 0

    @property
    def verdict(self) -> str:
        """By the rule at the head of this file."""
        holds = [check.holds for check in self.checks]
        if not holds:
            return UNKNOWN
        verdict = HOLDS if all(holds) else IN_PART if any(holds) else FAILS
        if self.pending:
            verdict += f" so far; {self.pending} of {len(holds) + self.pending} checks are not measured yet"
        return verdict

    @property
    def table(self) -> pd.DataFrame:
        """One row per check."""
        return pd.DataFrame([vars(check) for check in self.checks])

    def __repr__(self) -> str:
        return f"{self.says} {self.verdict.capitalize()}."

    def _repr_markdown_(self) -> str:
        lines = [f"**Claim.** {self.says}", f"**In the paper.** {self.paper}", f"**Different here.** {self.differs}"]
        return "\n\n".join([*lines, f"**Verdict: {self.verdict}.**"])

    def measure(self, data: str | Path | None = None) -> None:
        """Measure it anew, or go on where that was interrupted.

        Args:
            data: folder of the data, by default that which comes with the repository.
        """
        folder = DATA if data is None else Path(data).resolve()
        for command in self.commands:
            subprocess.run([sys.executable, *command, "--data", str(folder)], cwd=ROOT, check=True)


def above(what: str, row: Mapping[str, Any], bound: float, name: str | None = None) -> Check:
    """A check that holds where the whole interval lies above a bound.

    Args:
        what: the name of the number.
        row: with ``value``, ``low``, ``high`` and ``n``.
        bound: that ``low`` has to exceed.
        name: of the bound, in words.
    """
    needs = f"above {name or f'{bound:g}'}"
    return Check(what, row["value"], row["low"], row["high"], int(row["n"]), needs, bool(row["low"] > bound))


def topics() -> Claim:
    """Topics are identified from their vectors."""
    checks: list[Check] = []
    result, share = _read("topics/four_layers_full_rank.json"), _read("trust/bias.json")
    if result and share:
        (adapter,) = result["adapters"].values()
        n, protocols = result["settings"]["n"], adapter["retrieval"]["own"]
        greedy, six = (_triple(protocols[x]["recall@1"], n) for x in ("greedy", "best of six by answer"))
        row = next(row for row in share["tables"]["bias"] if row["measure"] == "recall@1")
        untrained = proportion_interval(np.arange(row["n"]) < round(row["untrained"] * row["n"]))
        checks = [
            above("recall@1, one greedy description", greedy, untrained.high, "the untrained direction's"),
            above("recall@1, best of six by the answer", six, untrained.high, "the untrained direction's"),
            above("recall@1, best of six by the answer", six, 0.94, "0.94, the paper's"),
        ]
    return Claim(
        "Adapters let a model name topics that they were not trained on, where the untrained vector says next to "
        "nothing.",
        "Recall@1 of 94% against 1% untrained (abstract), best of six; models of 8 billion parameters and more.",
        "SmolLM2-135M, a full matrix on four layers, titles alone as labels, a smaller embedder, 47,538 titles. "
        "The untrained direction is at its best length.",
        (
            ("-m", "interp_toolkit", "train", _FULL_RANK),
            ("-m", "benchmarks.topics", "evaluate", "--adapters", _FULL_RUN, "--output", "four_layers_full_rank"),
            ("-m", "benchmarks.trust", "bias"),
        ),
        tuple(checks),
    )


def family() -> Claim:
    """A scale and a bias suffice, and simpler adapters generalise better."""
    simple, full, smallest = (_cell(x) for x in ("scalar_affine-3200", "full_rank-3200", "scale-3200"))
    held_out, seen = (_feature_loss("full_rank", rows) for rows in ("held", "train"))
    recall, ridge = "recall@10, scalar affine", "full rank from a ridge fit"
    curves = [(_cell(f"scalar_affine-{size}"), _cell(f"full_rank_ridge_start-{size}")) for size in SIZES]
    wanted = [
        (f"{recall}, 3,200 titles", simple, smallest, "a trained scale without bias"),
        *((f"{recall}, {few['titles']:,} titles" if few else recall, few, many, ridge) for few, many in curves),
        (f"{recall}, 3,200 titles", simple, full, "full rank by gradients alone"),
        (
            "loss on labels of held-out SAE features, full rank",
            *(held_out, seen, "that of the features trained on: it overfits"),
        ),
    ]
    checks = [above(what, one, other["high"], than) for what, one, other, than in wanted if one and other]
    return Claim(
        "A scale and a bias, d_model + 1 numbers, suffice; simpler adapters generalise better than expressive ones.",
        "On topics the full matrix is best (loss 1.16 against 1.37, model card), on SAE labels it overfits (README of "
        "the reference code).",
        "SmolLM2-135M, topics, one label each, nested sets of titles; 100 steps up to 3,200 titles, beyond one pass "
        "over them, so that there more titles are more steps too; the full matrix also from a start in closed form, "
        "which the paper does not have.",
        (("-m", "benchmarks.topics"), ("-m", "benchmarks.sae")),
        tuple(checks),
        len(wanted) - len(checks),
    )


def sae_labels() -> Claim:
    """Descriptions score better than the labels an adapter was trained on."""
    checks = []
    for file, labels in (("scores.json", "original label, reworded"), ("llm_labels.json", "LLM label")):
        result = _read(f"sae_labels/{file}")
        rows = [row for row in result["tables"]["generation"] if row["what"] == f"less {labels}"] if result else []
        for score, name in (("rate", "any token active"), ("strict_rate", "content, above the 99th percentile")):
            for row in rows:
                if row["score"] == score and row["protocol"] == "best label" and row["source"].startswith("trained"):
                    checks.append(above(f"{row['source']}, {name}: {row['what']}", row, 0.0))
    return Claim(
        "Labels that a trained adapter generates for SAE features score better than the labels it was trained on.",
        "Generation scoring 70% against 50% (abstract of version 2; 71% against 63% in version 1).",
        "SmolLM2-135M and an SAE of its own with 4,096 features; the original labels are distinctive words, and, in "
        "the second study, what SmolLM2-135M itself says of the top examples (LLM label); both sides have six labels "
        "per feature and as many texts.",
        (("-m", "benchmarks.sae"), ("-m", "benchmarks.sae", "llm_labels"), ("-m", "benchmarks.topics", "label_noise")),
        tuple(checks),
    )


def bridges() -> Claim:
    """Bridge entities are decoded."""
    result, checks = _read("trust/bridges.json"), []
    if result:
        rows = {row["what"]: row for row in result["tables"]["any cell"] if row["group"] == "composed two-hop kept"}
        trained, chance = rows["trained"], rows["trained by chance"]
        checks = [
            above("bridge named somewhere: trained less untrained", rows["trained - untrained"], 0.0),
            above("bridge named somewhere, trained", trained, chance["high"], "chance"),
            above("bridge named somewhere, trained", trained, 0.91, "0.91, the paper's"),
        ]
    return Claim(
        "Entities that a two-hop question only implies are decoded from its hidden states, and stand neither in the "
        "prompt nor in the answer.",
        "91% against 56% untrained (second-hand, from readers of the paper), TwoHopFact, Llama-3.1-8B, every layer and "
        "token, ten samples.",
        "SmolLM2-135M, which answers 61 of 1,600 composed questions with both their hops right; three layers, six "
        "tokens, two samples; the mean of the question's form is taken off.",
        (("-m", "benchmarks.trust", "bridges"),),
        tuple(checks),
    )


def bias() -> Claim:
    """The bias accounts for most of the gain."""
    result, checks = _read("trust/bias.json"), []
    if result:
        shares = {(row["measure"], row["way"]): row | dict(value=row["share"]) for row in result["tables"]["bias"]}
        alone, without = (shares["loss", way] for way in ("bias only", "null vector"))
        checks = [
            above("share of the gain in loss, a bias trained alone", alone, 0.5, "half"),
            above("share of the gain in loss, the adapter without its vector", without, 0.5, "half"),
            above("share of the gain in loss, a bias trained alone", alone, 0.85),
            above("share of the gain in recall@10", shares["recall@10", "bias only"], 0.0),
        ]
    return Claim(
        "The learned bias alone accounts for most of the improvement.",
        "85% of it, in cross-entropy (abstract).",
        "SmolLM2-135M on topics, where the paper's figure is of SAE labels too, and the default adapter: rank 360 on "
        "four layers, and a soft prompt that asks to repeat it. Untrained is the direction at the deepest layer at its "
        "best length. With rank 64 on one layer the share of a bias trained alone was 0.57. Recall is measured "
        "besides: what names a topic is more than what lowers the loss.",
        (("-m", "benchmarks.trust", "bias"),),
        tuple(checks),
    )


def knowledge() -> Claim:
    """Descriptions add more to what a model can say when asked, the larger it is; one size says nothing of that."""
    return Claim(
        "Self-interpretation gains more with scale than the model's own knowledge does.",
        "Qwen2.5 from 7 to 72 billion parameters, in words only (abstract).",
        "One model, SmolLM2-135M: the gap at one size is measured and shown, its growth is not. The same command "
        "measures other models where they are at hand.",
        (("-m", "benchmarks.trust", "prompted_baseline"),),
        (),
    )


# notebook: its claim
CLAIMS: dict[str, Callable[[], Claim]] = {
    "1_topic_retrieval": topics,
    "2_adapter_family": family,
    "3_sae_labels": sae_labels,
    "4_bridge_entities": bridges,
    "5_bias_share": bias,
    "6_knowledge_and_scale": knowledge,
}


def retrieval_frame() -> pd.DataFrame:
    """Recall of the best adapter and its controls: columns ``vectors``, ``protocol``, ``measure``, ``value``, ``low``,
    ``high``, ``n``."""
    result = read_result(RESULTS / "topics" / "four_layers_full_rank.json")
    n = result["settings"]["n"]
    rows = [
        dict(vectors=vectors, protocol=protocol, measure=measure, **_triple(value, n))
        for adapter in result["adapters"].values()
        for vectors, protocols in adapter["retrieval"].items()
        for protocol, measures in protocols.items()
        for measure, value in measures.items()
    ]
    return pd.DataFrame(rows)


def transfer_frame() -> pd.DataFrame:
    """What labels cost with each adapter trained on features, titles or both."""
    table = transfer_table(RESULTS / "sae_labels")
    return table.sort_values(["kind", "trained_on"], kind="stable", ignore_index=True)


def family_frame(names: Sequence[str] = ("recall@1", "recall@10", "recall@100")) -> pd.DataFrame:
    """Recall of every cell that is there: columns ``adapter``, ``examples``, ``parameters``, ``measure``, ``value``,
    ``low``, ``high``, ``n``, with its losses."""
    rows = []
    for cell in CELLS.values():
        if (result := _read(f"topics/{cell.name}.json")) is None:
            continue
        settings = result["settings"]
        facts = dict(adapter=cell.kind, size=cell.size, examples=settings["train_titles"])
        facts |= dict(parameters=result["parameters"])
        losses = {key: result[key] for key in ("train_loss", "val_loss", "shuffled_loss")}
        for name in names:
            rows.append(facts | dict(measure=name) | _triple(result["retrieval"][name], settings["n"]) | losses)
    columns = ["adapter", "size", "examples", "parameters", "measure", "value", "low", "high", "n"]
    frame = pd.DataFrame(rows, columns=[*columns, "train_loss", "val_loss", "shuffled_loss"])
    return frame.sort_values(["examples", "parameters", "adapter"], kind="stable", ignore_index=True)


def frame(file: str, table: str) -> pd.DataFrame:
    """One table of a file of results."""
    result = _read(file)
    return pd.DataFrame(result["tables"][table] if result else [])


def _cell(name: str) -> dict[str, Any] | None:
    result = _read(f"topics/{name}.json")
    if result is None:
        return None
    settings = result["settings"]
    return _triple(result["retrieval"]["recall@10"], settings["n"]) | dict(titles=settings["train_titles"])


def _feature_loss(kind: str, rows: str) -> dict[str, Any] | None:
    """What labels of SAE features cost with the adapter trained on features."""
    result = _read(f"sae_labels/{kind}-sae.json")
    wanted = dict(measured_on="sae", rows=rows, measure="loss")
    table = result["tables"]["transfer"] if result else []
    return next((row for row in table if wanted.items() <= row.items()), None)


def _triple(value: Sequence[float], n: int) -> dict[str, Any]:
    return dict(value=value[0], low=value[1], high=value[2], n=n)


def _read(file: str) -> dict[str, Any] | None:
    path = RESULTS / file
    return read_result(path) if path.exists() else None
