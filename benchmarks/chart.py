"""Draws a horizontal bar chart as SVG, readable on light and dark pages."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

WIDTH = 720
LABEL_WIDTH = 150
VALUE_WIDTH = 110
TOP = 44
BAR_HEIGHT = 22
BAR_STEP = 32

_STYLE = """\
  text { font: 14px system-ui, sans-serif; fill: #1f2328 }
  .title { font-weight: 600 }
  .label { text-anchor: end }
  .bar { fill: #8c959f }
  .own { fill: #0969da }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .bar { fill: #6e7681 }
    .own { fill: #4493f8 }
  }"""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar; `own` highlights it."""

    label: str
    value: float
    text: str
    own: bool = False


def draw(title: str, bars: list[Bar]) -> str:
    """Return the chart as SVG text; the longest bar fills the width."""
    height = TOP + BAR_STEP * len(bars)
    longest = max((bar.value for bar in bars), default=0) or 1
    drawn = "\n".join(
        _draw_bar(bar, TOP + BAR_STEP * index, bar.value / longest)
        for index, bar in enumerate(bars)
    )
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" role="img"
  width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">
<title>{escape(title)}</title>
<style>
{_STYLE}
</style>
<text class="title" x="0" y="20">{escape(title)}</text>
{drawn}
</svg>
"""


def _draw_bar(bar: Bar, top: int, share: float) -> str:
    length = max(1.0, share * (WIDTH - LABEL_WIDTH - VALUE_WIDTH))
    middle = top + BAR_HEIGHT - 6
    style = "bar own" if bar.own else "bar"
    return (
        f'<text class="label" x="{LABEL_WIDTH - 10}" y="{middle}">{escape(bar.label)}</text>'
        f'<rect class="{style}" x="{LABEL_WIDTH}" y="{top}" rx="3" '
        f'width="{length:.1f}" height="{BAR_HEIGHT}"/>'
        f'<text x="{LABEL_WIDTH + length + 8:.1f}" y="{middle}">{escape(bar.text)}</text>'
    )
