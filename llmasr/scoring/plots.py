"""Plots of a report as inline SVG: error rate by bin, and the reliability of confidences.

Colours come from the page's style, so that both themes fit. Every bar says its numbers when
pointed at, and the tables beside the plots hold the same numbers.
"""

import math

from llmasr.scoring.confidence import Calibration
from llmasr.scoring.report_page import Html, element, per_cent
from llmasr.scoring.slices import Table

WIDTH, HEIGHT = 560, 270
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 22, 44  # room around the plotted area
TICKS = 4


def rate_plot(table: Table, caption: str) -> Html:
    """Draw the error rate of every slice that has one as a bar with its interval; units below."""
    parts = [part for part in table.slices if not math.isnan(part.rate)]
    highest = max((part.rate for part in parts), default=0.0)
    upper = [part.interval[1] for part in parts if part.interval]
    # A few words have intervals up to anything; those are cut off at the top.
    top = _ceiling(min(max([highest, *upper]), 2 * highest))
    step = (WIDTH - LEFT - RIGHT) / max(len(parts), 1)
    drawn = _axis(top)
    for place, part in enumerate(parts):
        left, middle = LEFT + place * step, LEFT + (place + 0.5) * step
        y = _y(part.rate, top)
        words = f"{part.name}: {per_cent(part.rate)}, {part.errors:,} of {part.units:,} units"
        drawn += [
            _bar(left + 0.14 * step, 0.72 * step, y, words),
            _text(middle, y - 6, per_cent(part.rate), "value"),
            _text(middle, HEIGHT - 26, part.name),
            _text(middle, HEIGHT - 10, f"{part.units:,}"),
        ]
        if part.interval:
            low, high = (_y(min(end, top), top) for end in part.interval)
            drawn.append(_line(left + 0.8 * step, low, left + 0.8 * step, high, "whisker"))
    return _figure(drawn, caption)


def reliability_plot(calibration: Calibration) -> Html:
    """Draw correct words (points) over confidence, the ideal, and the share of words (bars)."""
    drawn = _axis(1.0)
    drawn.append(_line(_across(0), HEIGHT - BOTTOM, _across(1), TOP, "ideal"))
    points = []
    for part in calibration.bins:
        share = part.words / max(calibration.words, 1)
        words = (
            f"confidence {part.low:.1f}-{part.high:.1f}: {part.words:,} words, mean confidence"
            f" {per_cent(part.mean_confidence)}, correct {per_cent(part.accuracy)}"
        )
        width = _across(part.high) - _across(part.low)
        drawn.append(_bar(_across(part.low) + 1, width - 2, _y(share, 1.0), words))
        if part.words:
            points.append((_across(part.mean_confidence), _y(part.accuracy, 1.0)))
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    drawn.append(element("polyline", points=path, class_="curve"))
    drawn += [
        element("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=4, class_="point") for x, y in points
    ]
    drawn += [_text(_across(tick / 5), HEIGHT - 26, f"{tick / 5:.1f}") for tick in range(6)]
    drawn.append(_text(_across(0.5), HEIGHT - 8, "confidence of the word"))
    return _figure(drawn, "Reliability: correct words (line) and share of words (bars)")


def _figure(drawn: list[Html], caption: str) -> Html:
    svg = element("svg", *drawn, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=caption)
    return element("figure", element("figcaption", caption), svg)


def _axis(top: float) -> list[Html]:
    drawn = []
    for tick in range(TICKS + 1):
        y = _y(tick / TICKS, 1.0)
        drawn.append(_line(LEFT, y, WIDTH - RIGHT, y, "axis"))
        label = f"{100 * top * tick / TICKS:.3g} %"
        drawn.append(_text(LEFT - 6, y + 4, label, anchor="end"))
    return drawn


def _ceiling(rate: float) -> float:
    """Return the least of 1, 2, 3, 4, 6, 8 times a power of ten that is `rate` or more."""
    if rate <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(rate))
    return next(
        (factor * power for factor in (1, 2, 3, 4, 6, 8) if rate <= factor * power), 10 * power
    )


def _y(value: float, top: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top


def _across(confidence: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * confidence


def _bar(x: float, width: float, y: float, words: str) -> Html:
    return element(
        "rect",
        element("title", words),
        x=f"{x:.1f}",
        y=f"{y:.1f}",
        width=f"{width:.1f}",
        height=f"{HEIGHT - BOTTOM - y:.1f}",
        class_="mark",
    )


def _line(x1: float, y1: float, x2: float, y2: float, css: str) -> Html:
    return element(
        "line", x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}", class_=css
    )


def _text(x: float, y: float, words: str, css: str | None = None, anchor: str = "middle") -> Html:
    return element("text", words, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, class_=css)
