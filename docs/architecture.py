"""Draw the package's rooms and their imports: `python docs/architecture.py` writes `architecture.svg` beside it."""

from __future__ import annotations

import ast
import textwrap
from html import escape
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "interp_toolkit"
PICTURE = Path(__file__).with_name("architecture.svg")

# In pixels.
_BOX, _BOX_HEIGHT, _GAP, _FLOOR, _MARGIN = 172, 74, 16, 124, 20
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#24292f}.name{font-weight:600;font-size:14px}"
    "rect{fill:#eef3fb;stroke:#2e74c8}path{fill:none;stroke:#8a94a3}"
    "@media(prefers-color-scheme:dark){text{fill:#e6e6e6}rect{fill:#1d2a3a}path{stroke:#6b7684}}"
)


def rooms() -> dict[str, str]:
    """Return the first line of each room's docstring, by the name of the room."""
    summaries = {}
    for path in sorted(PACKAGE.iterdir()):
        module = path / "__init__.py" if path.is_dir() else path
        if module.suffix == ".py" and module.exists() and path.name != "__init__.py":
            text = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
            summaries[path.stem] = text.split("\n")[0]
    return summaries


def imports() -> dict[str, set[str]]:
    """Return the rooms that each room imports from."""
    imported: dict[str, set[str]] = {room: set() for room in rooms()}
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room in imported:
            imported[room] |= _imported(path) & imported.keys() - {room}
    return imported


def floors(above: dict[str, set[str]]) -> dict[str, int]:
    """Return the floor of each room: one above the highest room that it imports from."""
    height: dict[str, int] = {}

    def climb(room: str) -> int:
        if room not in height:
            height[room] = max((climb(other) + 1 for other in sorted(above[room])), default=0)
        return height[room]

    return {room: climb(room) for room in sorted(above)}


def draw() -> str:
    """Return the picture as SVG."""
    summaries, uses = rooms(), imports()
    height = floors(uses)
    stacked = [[room for room in summaries if height[room] == floor] for floor in range(max(height.values()) + 1)]
    width = max(len(row) for row in stacked) * (_BOX + _GAP) - _GAP + 2 * _MARGIN
    tall = len(stacked) * _FLOOR - (_FLOOR - _BOX_HEIGHT) + 2 * _MARGIN
    place = {}
    for floor, row in enumerate(stacked):
        left = (width - len(row) * (_BOX + _GAP) + _GAP) / 2
        for number, room in enumerate(row):
            place[room] = (left + number * (_BOX + _GAP), _MARGIN + (len(stacked) - 1 - floor) * _FLOOR)
    lines = [_line(place[room], place[other]) for room in summaries for other in sorted(_direct(room, uses))]
    boxes = [_box(room, summaries[room], *place[room]) for room in summaries]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {tall}" role="img">',
            "<title>The rooms of interp_toolkit; a line leads down to what a room imports from</title>",
            f"<style>{_STYLE}</style>",
            *lines,
            *boxes,
            "</svg>\n",
        ]
    )


def _imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith(f"{PACKAGE.name}.")}


def _direct(room: str, uses: dict[str, set[str]]) -> set[str]:
    """Rooms that a room imports, without those that another imported room already leads to."""

    def reached(start: str) -> set[str]:
        return uses[start].union(*(reached(other) for other in uses[start]))

    return {other for other in uses[room] if not any(other in reached(via) for via in uses[room] - {other})}


def _line(upper: tuple[float, float], lower: tuple[float, float]) -> str:
    x, y = upper[0] + _BOX / 2, upper[1] + _BOX_HEIGHT
    end, foot = lower[0] + _BOX / 2, lower[1]
    bend = (y + foot) / 2
    return f'<path d="M{x:g} {y:g}C{x:g} {bend:g} {end:g} {bend:g} {end:g} {foot:g}"/>'


def _box(room: str, about: str, x: float, y: float) -> str:
    lines = textwrap.wrap(about, 28, max_lines=3, placeholder=" …")
    text = "".join(
        f'<text x="{x + 8:g}" y="{y + 36 + 14 * number:g}">{escape(line)}</text>' for number, line in enumerate(lines)
    )
    return (
        f'<g><rect x="{x:g}" y="{y:g}" width="{_BOX}" height="{_BOX_HEIGHT}" rx="6"/>'
        f'<text class="name" x="{x + 8:g}" y="{y + 20:g}">{room}</text>{text}</g>'
    )


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
