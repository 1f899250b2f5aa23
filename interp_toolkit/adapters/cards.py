"""The card of an adapter on the Hugging Face hub: what it is, how it is used, and what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import pandas as pd

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.results import Row, Table, interval_text, json_rows, markdown_table

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

    from interp_toolkit.adapters.adapter import Adapter
    from interp_toolkit.adapters.stored import StoredAdapter

# Facts of a training run that a card states, as `train_adapter` writes them into an adapter's metadata.
TRAINING_SETTINGS = (
    "batch_size",
    "lr",
    "scale_lr",
    "matrix_lr",
    "weight_decay",
    "clip",
    "max_grad_norm",
    "warmup_steps",
    "seed",
    "dtype",
)
_REQUIRED = ("measure", "value", "dataset")
_KNOWN = (*_REQUIRED, "low", "high", "n", "seed", "split")
_COLUMNS = {
    "measure": lambda row: _cell(row["name"]),
    "value (95% interval)": lambda row: _value(row),
    "n": lambda row: "" if row["n"] is None else f"{row['n']:,}",
    "measured on": lambda row: _cell(row["dataset"]),
}


def adapter_card(
    adapter: Adapter | StoredAdapter,
    repo_id: str,
    *,
    revision: str | None = None,
    evaluation: Table | Sequence[EvalResult] | None = None,
) -> str:
    """Write the card of an adapter: metadata that the hub reads, and text.

    Args:
        adapter: with its contract.
        repo_id: id of the adapter on the hub.
        revision: branch that it is loaded from, where that is not the main one.
        evaluation: as in `Adapter.push_to_hub`.

    Returns:
        What ``README.md`` holds.

    Raises:
        InterpToolkitError: an evaluation with other columns.
    """
    contract = adapter.contract
    if contract is None:
        raise InterpToolkitError("expected an adapter with its contract for a card, got one that is not trained")
    rows, results = _measured(evaluation)
    name = repo_id.rsplit("/", 1)[-1]
    paragraphs = [f"# {name}", introduction(adapter)]
    if contract.more:
        places = ", ".join(f"`{place.site}`" for place in contract.more)
        paragraphs.append(f"It also takes vectors read at {places}.")
    paragraphs.append(_usage(repo_id, revision, contract.model_id if contract.site and contract.soft_prompt else ""))
    if training := ", ".join(f"{key} {adapter.metadata[key]}" for key in TRAINING_SETTINGS if key in adapter.metadata):
        paragraphs.append(f"**Training.** {training}.")
    if threshold := contract.threshold:
        paragraphs.append(
            f"**Threshold.** {threshold.value:.2f} nats per token of evidence, which at most "
            f"{100 * threshold.false_positive_rate:.0f}% of control descriptions reach (n = {threshold.n:,}, seed "
            f"{threshold.seed})."
        )
    if rows:
        paragraphs.append(f"**Evaluation.**\n\n{markdown_table(rows, _COLUMNS)}")
    paragraphs.append(
        f"Weights and contract are in `adapter_model.safetensors` and `adapter_config.json`; digest `{adapter.digest}`."
    )
    metadata = card_metadata(name, results, base_model=contract.model_id if _is_hub_id(contract.model_id) else None)
    return f"---\n{metadata}\n---\n\n" + "\n\n".join(paragraphs) + "\n"


def with_results(card: str, repo_id: str, evaluation: Table | Sequence[EvalResult] | None) -> str:
    """Return a card that a user wrote, with an evaluation in its metadata where there is one.

    Args:
        card: text of ``README.md``.
        repo_id: id of the adapter on the hub.
        evaluation: as in `Adapter.push_to_hub`.

    Raises:
        InterpToolkitError: metadata that is not YAML, or an evaluation with other columns.
    """
    from huggingface_hub import ModelCard

    _, results = _measured(evaluation)
    if not results:
        return card
    try:
        parsed = ModelCard(card)
    except Exception as error:  # parsers of YAML and of results have many
        text = " ".join(str(error).split())[:300]
        raise InterpToolkitError(f"the metadata at the head of the card cannot be read; mend it: {text}") from error
    parsed.data["model_name"] = parsed.data.get("model_name") or repo_id.rsplit("/", 1)[-1]
    parsed.data["eval_results"] = results
    return str(parsed)


def card_metadata(name: str, results: Iterable[EvalResult], **further: Any) -> str:
    """What the hub reads of an adapter's card, as YAML.

    Args:
        name: of the adapter.
        results: what was measured.
        further: fields of ``huggingface_hub.ModelCardData``, such as ``base_model`` and ``license``.
    """
    from huggingface_hub import ModelCardData

    return ModelCardData(
        library_name="interp-toolkit",
        tags=["interpretability", "self-interpretation", "adapter"],
        model_name=name,
        eval_results=list(results),
        **further,
    ).to_yaml()


def eval_result(**fields: Any) -> EvalResult:
    """One number that was measured of an adapter, as the metadata of a card states it.

    Args:
        fields: those of ``huggingface_hub.EvalResult`` but for its task.
    """
    from huggingface_hub import EvalResult

    return EvalResult(task_type="text-generation", task_name="self-interpretation", **fields)


def introduction(adapter: Adapter | StoredAdapter) -> str:
    """What an adapter is and which vectors it takes, in two sentences."""
    config, contract = adapter.config, adapter.contract
    if contract is None:
        raise InterpToolkitError("expected an adapter with its contract, got one that is not trained")
    revision = f"\n(revision `{contract.revision}`)" if contract.revision else ""
    vectors = "a vector" if config.sites == 1 else f"the vectors of one token at {config.sites} sites, side by side,"
    place = f" read at\n`{contract.site}`" if contract.site else ""
    centred = ",\ncentred by the mean it carries," if contract.mean is not None else ""
    output = "a soft token" if config.tokens == 1 else f"{config.tokens} soft tokens"
    return (
        f"An adapter of kind `{config.kind}` with {adapter.parameter_count:,} parameters, for "
        f"{contract.model_id or 'a model that its file does not name'}{revision}. It turns {vectors}{place}{centred} "
        f"into {output} from which the model says what the vector means. Method: arXiv 2602.10352."
    )


def _usage(repo_id: str, revision: str | None, model_id: str) -> str:
    where = f'"{repo_id}"' + (f', revision="{revision}"' if revision else "")
    names = "Adapter, load_model, self_explain" if model_id else "Adapter"
    lines = [f"from interp_toolkit import {names}", "", f"adapter = Adapter.from_pretrained({where})"]
    if model_id:
        lines.append(f'model = load_model("{model_id}")')
        lines.append('print(self_explain("Tell me about baseball.", model=model, adapter=adapter))')
    return "\n".join(["```python", *lines, "```"])


def _is_hub_id(model_id: str) -> bool:
    """Whether a model may be named as a base model: a folder on someone's disk is none."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(model_id)
    except HFValidationError:
        return False
    return model_id.count("/") == 1


def _measured(evaluation: Table | Sequence[EvalResult] | None) -> tuple[list[dict[str, Any]], list[EvalResult]]:
    """The rows of a card's table, and the same for its metadata."""
    from huggingface_hub import EvalResult

    if evaluation is None:
        return [], []
    if isinstance(evaluation, (Mapping, str)):
        raise InterpToolkitError(
            f"expected a data frame, its rows, or a list of EvalResult as evaluation, got {type(evaluation).__name__}; "
            f"of a results file pass one of its tables"
        )
    items: Any = evaluation if isinstance(evaluation, pd.DataFrame) else list(evaluation)
    if isinstance(items, list) and all(isinstance(item, EvalResult) for item in items):
        return [_shown(result, {}) for result in items], items
    if isinstance(items, pd.DataFrame) or all(isinstance(item, Mapping) for item in items):
        items = json_rows(items)
    results = [_parse_row(item) for item in items]
    return [_shown(result, row) for result, row in zip(results, items)], results


def _parse_row(row: Row) -> EvalResult:
    columns = list(map(str, row)) if isinstance(row, Mapping) else []
    if missing := [name for name in _REQUIRED if name not in columns]:
        got = ", ".join(columns) or f"{row!r:.80}"
        raise InterpToolkitError(
            f"expected the columns {', '.join(_REQUIRED)} in an evaluation, got {got}; add {', '.join(missing)}, as in "
            f"table.assign(dataset='titles of articles')"
        )
    measure, value = str(row["measure"]), row["value"]
    if not isinstance(value, Real) or isinstance(value, bool):
        raise InterpToolkitError(f"expected a finite number as value of {measure} in the evaluation, got {value!r}")
    # Columns of a table's own tell its rows apart.
    further = ", ".join(f"{name}: {x}" for name, x in row.items() if name not in _KNOWN and x is not None)
    return eval_result(
        dataset_type="vectors",
        dataset_name=str(row["dataset"]),
        dataset_split=None if row.get("split") is None else str(row["split"]),
        metric_type=measure.split("@")[0],
        metric_name=f"{measure} ({further})" if further else measure,
        metric_value=float(f"{float(value):.4g}"),
    )


def _shown(result: EvalResult, row: Row) -> dict[str, Any]:
    split = "" if result.dataset_split is None else f" (split {result.dataset_split})"
    n = row.get("n")
    return dict(
        name=result.metric_name or result.metric_type,
        value=result.metric_value,
        low=row.get("low"),
        high=row.get("high"),
        n=None if n is None else int(n),
        dataset=f"{result.dataset_name}{split}",
    )


def _value(row: Row) -> str:
    return interval_text(row, ".4g") if isinstance(row["value"], Real) else _cell(str(row["value"]))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
