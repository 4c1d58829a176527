"""The gateway benchmark's chart: a hand-written SVG of points on logarithmic scales. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from bench.gateway_summary import Summary

_PANELS: Final[tuple[tuple[str, str, Callable[[Summary], float | None]], ...]] = (
    ("CPU per plain request", "µs", lambda one: one.plain_cpu_us),
    ("CPU per streamed chunk", "µs", lambda one: one.chunk_cpu_us),
    ("added latency, one at a time, p50", "ms", lambda one: one.plain_alone_p50_ms),
    ("memory per open stream", "KB", lambda one: one.memory_kb),
)
_COLOURS: Final = ("#b3541e", "#33658a", "#6b7280", "#3f7d4e")
_WIDTH: Final = 720
_ROW: Final = 26
_LABEL: Final = 120
_PANEL_WIDTH: Final = _WIDTH // 2
_FONT: Final = 'font-family="system-ui, sans-serif" font-size="12" fill="#1f2328"'


def chart(summaries: Sequence[Summary]) -> str:
    """The picture; the upstream itself, which is no gateway, is left out."""
    gateways = [one for one in summaries if one.name != "direct"]
    panel_height = _ROW * (len(gateways) + 3)
    height = 2 * panel_height + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        'role="img" aria-label="Costs of gateways">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for place, (title, unit, cost) in enumerate(_PANELS):
        x, y = (place % 2) * _PANEL_WIDTH + 16, (place // 2) * panel_height + 10
        parts += _panel(x, y, f"{title}, {unit}", [(one.name, cost(one)) for one in gateways])
    caption = "Logarithmic scales; further left is better."
    parts.append(f'<text x="16" y="{height - 12}" {_FONT} opacity="0.7">{caption}</text>')
    return "\n".join((*parts, "</svg>", ""))


def _panel(x: int, y: int, title: str, values: Sequence[tuple[str, float | None]]) -> list[str]:
    known = [value for _, value in values if value is not None and value > 0]
    low, high = _decades(known)
    left, right = x + _LABEL, x + _PANEL_WIDTH - 70
    bottom = y + _ROW * (len(values) + 1)
    parts = [f'<text x="{x}" y="{y + 14}" {_FONT} font-weight="600">{title}</text>']
    for decade in range(low, high + 1):
        at = left + (right - left) * (decade - low) / (high - low)
        parts.append(f'<line x1="{at:.1f}" y1="{y + 24}" x2="{at:.1f}" y2="{bottom}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{at:.1f}" y="{bottom + 14}" {_FONT} text-anchor="middle">{10.0**decade:g}</text>')
    for row, (name, value) in enumerate(values):
        middle = y + _ROW * (row + 1) + 10
        parts.append(f'<text x="{x}" y="{middle + 4}" {_FONT}>{name}</text>')
        if value is None or value <= 0:
            parts.append(f'<text x="{left + 8}" y="{middle + 4}" {_FONT} opacity="0.6">not measured</text>')
            continue
        at = left + (right - left) * (math.log10(value) - low) / (high - low)
        colour = _COLOURS[row % len(_COLOURS)]
        parts.append(
            f'<line x1="{left}" y1="{middle}" x2="{at:.1f}" y2="{middle}" stroke="{colour}" stroke-width="2"/>'
        )
        parts.append(f'<circle cx="{at:.1f}" cy="{middle}" r="5" fill="{colour}"/>')
        parts.append(f'<text x="{at + 9:.1f}" y="{middle + 4}" {_FONT}>{value:,.3g}</text>')
    return parts


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """The powers of ten around ``values``."""
    if not values:
        return 0, 1
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)
