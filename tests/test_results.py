"""Results files: what one holds, which is taken for finished, and its tables as Markdown."""

import json

import pandas as pd
import pytest

from interp_toolkit import FileFormatError
from interp_toolkit.results import (
    finished_result,
    interval_text,
    intervals_by_measure,
    json_rows,
    make_result,
    markdown_table,
    percent_text,
    read_result,
    write_result,
)

ROW = dict(measure="recall@1", value=0.17351, low=0.163, high=0.185, n=4664)


def test_a_result_is_written_whole_and_read_again(tmp_path):
    path = tmp_path / "results" / "one.json"
    table = pd.DataFrame(dict(a=[1, 2], b=[0.5, float("nan")]))
    result = make_result(
        dict(n=2), {"torch": "2"}, dict(one=table), failed=[dict(title="x", reason="empty")], note="further"
    )
    assert list(result) == ["settings", "versions", "failed", "tables", "note"]
    assert result["failed"] == dict(count=1, rows=[dict(title="x", reason="empty")])
    assert result["tables"]["one"] == [dict(a=1, b=0.5), dict(a=2, b=None)]
    write_result(path, result)
    assert read_result(path) == result
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_result(path, dict(settings={}, tables=dict(one=[dict(value=float("nan"))])))
    assert read_result(path) == result


def test_a_finished_result_has_the_same_settings(tmp_path):
    path, settings = tmp_path / "one.json", dict(n=1, scales=(1.0, 2.0))
    assert finished_result(path, settings) is None
    write_result(path, make_result(settings, {}, {}))
    assert finished_result(path, settings)["settings"] == dict(n=1, scales=[1.0, 2.0])
    assert finished_result(path, settings | dict(n=2)) is None
    path.write_text("[]")
    with pytest.raises(FileFormatError, match="expected a results file with settings at .*; move it away or delete it"):
        finished_result(path, settings)
    with pytest.raises(FileFormatError, match="expected a results file at .*, and there is none"):
        read_result(tmp_path / "none.json")


def test_rows_are_such_as_json_holds():
    numbers = pd.array([1, None], dtype="Int64")
    table = pd.DataFrame(dict(a=[1, 2], b=[float("inf"), float("nan")], c=["x", None], d=[True, False], e=numbers))
    assert json_rows(table) == [
        dict(a=1, b=None, c="x", d=True, e=1),
        dict(a=2, b=None, c=None, d=False, e=None),
    ]
    assert json.dumps(json_rows(table), allow_nan=False)
    assert json_rows([dict(a=1.5), dict(b=float("nan"))]) == [dict(a=1.5), dict(b=None)]


def test_intervals_by_measure():
    assert intervals_by_measure(pd.DataFrame([ROW])) == {"recall@1": [0.1735, 0.163, 0.185]}


def test_a_table_as_markdown():
    columns = {"measure": "`{measure}`", "value": percent_text, "n": "{n:,}"}
    expected = "| measure | value | n |\n|---|---|---|\n| `recall@1` | 17.4% (16.3 to 18.5) | 4,664 |"
    assert markdown_table([ROW], columns) == expected
    assert markdown_table(pd.DataFrame([ROW]), columns) == expected
    assert markdown_table([], {"": "{a}"}) == "|  |\n|---|"


def test_intervals_as_text():
    assert interval_text(ROW) == "0.174 (0.163 to 0.185)"
    assert interval_text([1.75, 1.67, 1.832], ".2f") == "1.75 (1.67 to 1.83)"
    assert interval_text(dict(value=2.0, low=None, high=None)) == "2"
    assert interval_text([2.0, float("nan"), float("nan")]) == "2"
    assert percent_text([0.5, 0.25, 1]) == "50.0% (25.0 to 100.0)"
