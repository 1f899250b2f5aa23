import math

import pandas as pd

from interp_toolkit.tables import frame_text, text_table


def test_cells_are_no_markup_and_fit_the_width():
    text = text_table(["name", "value"], [["[bold]x[/bold] " * 12, "1"], ["y", "22"]], ["value"], 40)
    assert "[bold]x[/bold]" in text
    assert all(len(line) <= 40 for line in text.splitlines())
    assert [line.rsplit(" ", 1)[-1] for line in text.splitlines() if line.endswith(("1", "22"))] == ["1", "22"]


def test_a_frame_shows_intervals_and_says_once_what_is_always_the_same():
    frame = pd.DataFrame(
        [
            dict(measure="recall@1", value=0.12345, low=0.1, high=0.2, n=10, seed=0),
            dict(measure="recall@10", value=math.nan, low=math.nan, high=math.nan, n=9, seed=0),
            dict(measure="of nothing", value=5.0, low=-math.inf, high=math.inf, n=9, seed=0),
        ]
    )
    lines = frame_text(frame).splitlines()
    assert lines[0].split() == ["measure", "value", "n", "interval"]
    assert lines[1].split() == ["recall@1", "0.123", "10", "0.1", "to", "0.2"]
    assert lines[2].split() == ["recall@10", "9"]
    assert lines[3].split() == ["of", "nothing", "5", "9", "unbounded"]
    assert lines[4] == "(seed 0)"
    assert frame_text(frame.head(1)).splitlines()[0].split() == ["measure", "value", "n", "seed", "interval"]


def test_in_a_notebook_a_table_is_text_and_nothing_is_shown_besides(monkeypatch):
    shown = []
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr("rich.jupyter.display", lambda *parts: shown.append(parts))
    assert text_table(["a"], [["b"]]).split() == ["a", "b"]
    assert not shown
