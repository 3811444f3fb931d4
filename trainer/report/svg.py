"""Small charts as SVG text: axes, lines, bars, points; colours come from the page's CSS.

Everything drawn is scaled here; a few `data-` attributes let the page's script turn a pointer
position back into numbers. Text is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from markupsafe import Markup

WIDTH = 460
HEIGHT = 340
_RIGHT, _TOP, _BOTTOM = 24, 12, 46


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """A linear axis."""

    label: str
    low: float = 0.0
    high: float = 1.0
    kind: str = "percent"
    """percent or number: how ticks and tooltips are written."""

    def ticks(self) -> list[float]:
        """Return round numbers inside the axis, about five."""
        span = self.high - self.low
        raw = span / 5.0
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(
            power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999
        )
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]

    def text(self, value: float) -> str:
        """Write a tick."""
        return f"{100.0 * value:g}%" if self.kind == "percent" else f"{value:,.6g}"


@dataclass(slots=True)
class Chart:
    """One chart being drawn; `svg()` returns it as markup."""

    title: str
    description: str
    x: Axis
    y: Axis
    height: int = HEIGHT
    width: int = WIDTH
    """Of the drawing, in units that the page scales; a small chart stays readable."""
    left: int = 64
    """Room for the y axis."""
    has_titles: bool = False
    """Say tips as titles, for a page without a script: browsers show them to a pointer at rest."""
    _parts: list[str] = field(default_factory=list)

    def line(
        self, name: str, x: Sequence[float], y: Sequence[float], series: int, *, step: bool = False
    ) -> None:
        """Draw a line that the tooltip follows; `step` holds each value until the next x."""
        points = [(self._px(a), self._py(b)) for a, b in zip(x, y, strict=True)]
        if step:
            points = [
                corner
                for before, after in zip(points[:1] + points[:-1], points, strict=True)
                for corner in ((after[0], before[1]), after)
            ]
        text = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        self._parts.append(
            f'<polyline class="line s{series}" data-name="{escape(name)}" points="{text}"/>'
        )

    def reference(self, x: Sequence[float], y: Sequence[float], name: str) -> None:
        """Draw a thin dashed line to compare with."""
        text = " ".join(f"{self._px(a):.1f},{self._py(b):.1f}" for a, b in zip(x, y, strict=True))
        self._parts.append(
            f'<polyline class="reference" points="{text}"><title>{escape(name)}</title></polyline>'
        )

    def marker(self, x: float, name: str) -> None:
        """Draw a labelled vertical line."""
        at = self._px(x)
        side = "end" if at > 0.6 * self.width else "start"
        shift = -6 if side == "end" else 6
        self._parts.append(
            f'<line class="marker" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" '
            f'y2="{self.height - _BOTTOM}"/><text class="marker-text" x="{at + shift:.1f}" '
            f'y="{_TOP + 12}" text-anchor="{side}">{escape(name)}</text>'
        )

    def bar(
        self, x: tuple[float, float], y: float, series: int, tip: str, *, base: float = 0.0
    ) -> None:
        """Draw an upright bar over [x0, x1] from `base` to y."""
        left, right = self._px(x[0]) + 0.75, self._px(x[1]) - 0.75
        top, bottom = self._py(max(y, base)), self._py(min(y, base))
        self._parts.append(
            f'<rect class="bar s{series}" x="{left:.1f}" y="{top:.1f}" '
            f'width="{max(right - left, 0.5):.1f}" height="{max(bottom - top, 0.0):.1f}" '
            f"{self._tip('rect', tip)}"
        )

    def dot(
        self,
        at: tuple[float, float],
        series: int,
        tip: str,
        *,
        vertical: tuple[float, float] | None = None,
        horizontal: tuple[float, float] | None = None,
        is_hollow: bool = False,
    ) -> None:
        """Draw a point, with whiskers for its interval."""
        x, y = self._px(at[0]), self._py(at[1])
        if vertical is not None:
            low, high = self._py(vertical[0]), self._py(vertical[1])
            self._parts.append(
                f'<line class="whisker s{series}" x1="{x:.1f}" x2="{x:.1f}" '
                f'y1="{low:.1f}" y2="{high:.1f}"/>'
            )
        if horizontal is not None:
            low, high = self._px(horizontal[0]), self._px(horizontal[1])
            self._parts.append(
                f'<line class="whisker s{series}" x1="{low:.1f}" x2="{high:.1f}" '
                f'y1="{y:.1f}" y2="{y:.1f}"/>'
            )
        self._parts.append(
            f'<circle class="dot s{series}{" hollow" if is_hollow else ""}" cx="{x:.1f}" '
            f'cy="{y:.1f}" r="4.5" {self._tip("circle", tip)}'
        )

    def label(self, at: tuple[float, float], text: str, *, css: str = "label") -> None:
        """Write text above a point."""
        x, y = self._px(at[0]), self._py(at[1]) - 11
        self._parts.append(
            f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">'
            f"{escape(text)}</text>"
        )

    def row_label(self, y: float, text: str) -> None:
        """Write text inside the plot, at its left edge, above height y."""
        self._parts.append(
            f'<text class="label" x="{self.left + 4}" y="{self._py(y) - 9:.1f}">'
            f"{escape(text)}</text>"
        )

    def svg(self, *, y_ticks: bool = True) -> Markup:
        """Return the finished chart."""
        spoken = escape(f"{self.title}. {self.description}")
        parts = [
            f'<svg class="chart" role="img" aria-label="{spoken}" '
            f'viewBox="0 0 {self.width} {self.height}" xmlns="http://www.w3.org/2000/svg" '
            f'data-plot="{self.left},{_TOP},{self.width - _RIGHT},{self.height - _BOTTOM}" '
            f'data-x="{self.x.low!r},{self.x.high!r},{self.x.kind}" '
            f'data-y="{self.y.low!r},{self.y.high!r},{self.y.kind}" '
            f'data-labels="{escape(self.x.label)}|{escape(self.y.label)}">',
            f"<title>{escape(self.title)}</title><desc>{escape(self.description)}</desc>",
            *self._axes(y_ticks),
            *self._parts,
            "</svg>",
        ]
        return Markup("".join(parts))

    def _axes(self, y_ticks: bool) -> list[str]:
        """Grid, ticks and axis labels."""
        bottom, right = self.height - _BOTTOM, self.width - _RIGHT
        parts = []
        for value in self.x.ticks():
            at = self._px(value)
            parts.append(
                f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{bottom}"/>'
            )
            parts.append(
                f'<text class="tick" x="{at:.1f}" y="{bottom + 17}" text-anchor="middle">'
                f"{self.x.text(value)}</text>"
            )
        for value in self.y.ticks() if y_ticks else []:
            at = self._py(value)
            parts.append(
                f'<line class="grid" x1="{self.left}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>'
            )
            parts.append(
                f'<text class="tick" x="{self.left - 7}" y="{at + 4:.1f}" text-anchor="end">'
                f"{self.y.text(value)}</text>"
            )
        middle_x, middle_y = (self.left + right) / 2, (_TOP + bottom) / 2
        parts.append(
            f'<text class="axis" x="{middle_x:.1f}" y="{self.height - 8}" text-anchor="middle">'
            f"{escape(self.x.label)}</text>"
        )
        if self.y.label:
            parts.append(
                f'<text class="axis" x="13" y="{middle_y:.1f}" text-anchor="middle" '
                f'transform="rotate(-90 13 {middle_y:.1f})">{escape(self.y.label)}</text>'
            )
        return parts

    def _tip(self, tag: str, tip: str) -> str:
        """End a shape with what it tells."""
        if self.has_titles:
            return f"><title>{escape(tip)}</title></{tag}>"
        return f'data-tip="{escape(tip)}"/>'

    def _px(self, value: float) -> float:
        share = (value - self.x.low) / (self.x.high - self.x.low)
        return self.left + min(max(share, 0.0), 1.0) * (self.width - _RIGHT - self.left)

    def _py(self, value: float) -> float:
        bottom = self.height - _BOTTOM
        share = (value - self.y.low) / (self.y.high - self.y.low)
        return bottom - min(max(share, 0.0), 1.0) * (bottom - _TOP)
