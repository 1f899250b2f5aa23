"""Descriptions of SAE features in the forms of other tools: Neuronpedia's export, and graphs of circuit-tracer."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from interp_toolkit.errors import FileFormatError, InterpToolkitError
from interp_toolkit.files import whole_file, whole_folder
from interp_toolkit.json_lines import read_json

# The kinds of explanation, by which Neuronpedia groups them.
TYPE_NAME, OTHER_TYPE_NAME = "self_explanation", "merged_label"
_ROWS_PER_FILE = 1024
# The source of labels that are descriptions.
DESCRIPTION = "description"


def neuronpedia_rows(
    best: pd.DataFrame, neuronpedia_id: str, explainer: str, *, all_rows: bool = False
) -> list[dict[str, str]]:
    """Descriptions as rows of Neuronpedia's export of explanations.

    Args:
        best: of `best_descriptions`, or of `with_labels`, whose labels of other sources are named for these.
        neuronpedia_id: ``model/layer-source``, such as ``"gemma-2-2b/20-gemmascope-res-16k"``.
        explainer: name of the model and adapter that wrote them.
        all_rows: whether to keep descriptions that are not above the threshold of evidence; these are guesses.

    Returns:
        rows with ``modelId``, ``layer``, ``index``, ``description``, ``typeName`` and ``explanationModelName``.

    Raises:
        InterpToolkitError: an id that is none.
    """
    model, _, layer = neuronpedia_id.partition("/")
    if not model or not layer or "/" in layer:
        raise InterpToolkitError(f"expected an id like gemma-2-2b/20-gemmascope-res-16k, got {neuronpedia_id!r}")
    sources: dict[int, str] = dict(zip(best["feature"], best["source"])) if "source" in best else {}
    rows = []
    for feature, description in usable_labels(best, all_rows=all_rows).items():
        source = sources.get(feature, DESCRIPTION)
        kind, name = (TYPE_NAME, explainer) if source == DESCRIPTION else (OTHER_TYPE_NAME, source)
        row = dict(modelId=model, layer=layer, index=str(feature), description=description)
        rows.append(row | dict(typeName=kind, explanationModelName=name))
    return rows


def with_labels(best: pd.DataFrame, merged: pd.DataFrame) -> pd.DataFrame:
    """Descriptions of features, with labels of other sources in place of those that fit texts less well.

    Args:
        best: of `best_descriptions`.
        merged: of `merge_labels`, with `DESCRIPTION` among the sources.

    Returns:
        columns of ``best``, and ``source``, ``auroc``. Labels of other sources count as above the threshold; evidence
        and confidence are those of descriptions alone.
    """
    frame = best.assign(source=DESCRIPTION).set_index("feature")
    chosen: Any = merged.set_index("feature")
    frame = frame.reindex(frame.index.union(chosen.index))
    frame["auroc"] = chosen["auroc"].reindex(frame.index)
    others = chosen.index[chosen["source"] != DESCRIPTION]
    frame.loc[others, "description"] = chosen.loc[others, "label"]
    frame.loc[others, "source"] = chosen.loc[others, "source"]
    frame.loc[others, [name for name in ("log_prob", "evidence", "confidence") if name in frame]] = float("nan")
    frame.loc[others, "problem"] = None
    frame.loc[others, "above_threshold"] = True
    return frame.reset_index()


def write_neuronpedia(rows: list[dict[str, str]], folder: str | Path) -> None:
    """Write rows in the form of Neuronpedia's export: ``batch-0.jsonl.gz`` and so on, the folder whole or not at all.

    Args:
        rows: of `neuronpedia_rows`.
        folder: to write; `interp_toolkit.sae.labels` reads it.

    Raises:
        InterpToolkitError: no rows.
    """
    if not rows:
        raise InterpToolkitError(
            "expected descriptions above the threshold of evidence, and there are none; pass all_rows=True to write "
            "those below it"
        )
    with whole_folder(Path(folder)) as draft:
        for number, start in enumerate(range(0, len(rows), _ROWS_PER_FILE)):
            with gzip.open(draft / f"batch-{number}.jsonl.gz", "wt", encoding="utf-8") as file:
                for row in rows[start : start + _ROWS_PER_FILE]:
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")


def label_graph(graph: str | Path, labels: Mapping[int, str], layer: int, output: str | Path) -> int:
    """Put descriptions of a layer's features into an attribution graph of circuit-tracer, as the labels of its nodes.

    Labels that nodes have already stay.

    Args:
        graph: JSON file that circuit-tracer wrote for its browser page: nodes with ``node_id`` and ``clerp``.
        labels: of `usable_labels`, by number of the feature.
        layer: of the features.
        output: file to write, which may be the graph's own.

    Returns:
        number of nodes that got a label.

    Raises:
        FileFormatError: no such graph.

    Example:
        >>> label_graph("graph.json", usable_labels(best_descriptions(table)), 20, "labelled.json")
    """
    described = read_json(Path(graph), "an attribution graph")
    nodes = described.get("nodes") if isinstance(described, dict) else None
    if not isinstance(nodes, list) or not all(isinstance(node, dict) and "node_id" in node for node in nodes):
        raise FileFormatError(f"expected a graph of circuit-tracer, with nodes that have a node_id, in {graph}")
    count = 0
    for node in nodes:
        # Features are named LAYER_FEATURE_POSITION; embeddings, errors and logits otherwise.
        named = str(node["node_id"]).split("_")
        if len(named) != 3 or named[0] != str(layer) or not named[1].isdecimal() or node.get("clerp"):
            continue
        if label := labels.get(int(named[1])):
            node["clerp"] = label
            count += 1
    with whole_file(Path(output)) as draft:
        draft.write_text(json.dumps(described, ensure_ascii=False), encoding="utf-8")
    return count


def usable_labels(best: pd.DataFrame, *, all_rows: bool = False) -> dict[int, str]:
    """Descriptions by number of the feature.

    Args:
        best: of `best_descriptions`.
        all_rows: whether to keep descriptions that are not above the threshold of evidence, and those of adapters
            without one.
    """
    texts: Any = best[best["description"].fillna("").str.strip() != ""]
    if not all_rows:
        texts = texts[[above is True for above in texts["above_threshold"].tolist()]]
    return {int(feature): str(text) for feature, text in zip(texts["feature"], texts["description"])}
