"""How a report page is put together: escaped elements, sortable tables, style and script.

Whatever is given as a plain string is escaped; only `Html`, which `element` returns, is taken as
markup. So a transcript, an id or a path cannot become part of the page's code. The page asks for
nothing over a network: its content security policy allows its own style, the one script below (by
its hash) and audio from files beside it or inside it.

Knows nothing of scores.
"""

import base64
import hashlib
import html
import math
from collections.abc import Iterable, Sequence

# Control characters are shown as their pictures; a page may not hold them.
CONTROLS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | {127: 0x2421}

Cell = str | int | float  # a name, a count, a fraction to be shown in per cent


class Html(str):
    """Markup: text that is already escaped."""

    __slots__ = ()


def element(tag: str, /, *children: str, **attributes: str | int | None) -> Html:
    """Return one element; children that are not `Html` are escaped, as are all attributes.

    Args:
        tag: its name.
        children: text or elements.
        attributes: underscores become hyphens, a last one is dropped (`class_`); None is left out.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Html(f"<{tag}{written}>{join(children)}</{tag}>")


def join(children: Iterable[str]) -> Html:
    """Return `children` one after the other; those that are not `Html` are escaped."""
    return Html("".join(c if isinstance(c, Html) else escape(c) for c in children))


def escape(text: str) -> Html:
    """Return `text` as markup that shows it."""
    return Html(html.escape(text.translate(CONTROLS)))


def per_cent(fraction: float) -> str:
    """Write a fraction in per cent with two decimals, and nan as a dash."""
    return "\u2013" if math.isnan(fraction) else f"{100 * fraction:.2f} %"


def sortable(
    headers: Sequence[str], rows: Iterable[Sequence[Cell]], total: Sequence[Cell] | None = None
) -> Html:
    """Return a table that is sorted by a click on a column's name.

    Args:
        headers: names of columns.
        rows: a cell for each column; fractions get a bar behind them, longest for the largest.
        total: a last row that stays last.
    """
    rows = list(rows)
    fractions = [cell for row in rows for cell in row if isinstance(cell, float)]
    largest = max((cell for cell in fractions if not math.isnan(cell)), default=0.0)
    text = [all(isinstance(row[i], str) for row in rows) for i, _ in enumerate(headers)]
    head = [
        element(
            "th",
            element("button", name, type="button"),
            scope="col",
            class_=None if is_text else "number",
        )
        for name, is_text in zip(headers, text, strict=True)
    ]
    body = [element("tr", *(_cell(cell, largest) for cell in row)) for row in rows]
    foot = [element("tr", *(_cell(cell, 0) for cell in total))] if total else []
    table = element(
        "table",
        element("thead", element("tr", *head)),
        element("tbody", *body),
        element("tfoot", *foot),
        class_="sortable",
    )
    return element("div", table, class_="scroll")


def _cell(cell: Cell, largest: float) -> Html:
    if isinstance(cell, str):
        return element("td", cell)
    if isinstance(cell, int):
        return element("td", f"{cell:,}", class_="number", data_value=cell)
    if math.isnan(cell):
        return element("td", per_cent(cell), class_="number", data_value="")
    style = f"--share:{100 * cell / largest:.1f}%" if largest else None
    css = "number bar" if largest else "number"
    return element("td", per_cent(cell), class_=css, style=style, data_value=f"{cell:.6g}")


def page(title: str, sections: Iterable[tuple[str, str, Html]]) -> str:
    """Return the whole document.

    Args:
        title: its heading.
        sections: anchor, heading (none for an empty string) and content of each.
    """
    sections = list(sections)
    links = [element("a", heading, href=f"#{anchor}") for anchor, heading, _ in sections if heading]
    parts = [
        element("section", *([element("h2", heading)] if heading else []), content, id=anchor)
        for anchor, heading, content in sections
    ]
    theme = element("button", "Light / dark", type="button", id="theme")
    header = element("header", element("h1", title), element("nav", *links, theme))
    script_hash = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{script_hash}';"
        " media-src 'self' file: data:; base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{element('title', title)}\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"{header}\n{element('main', *parts)}\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


STYLE = """
:root { color-scheme: light dark;
  --paper: light-dark(#fbfbfa, #16181c); --card: light-dark(#ffffff, #1e2127);
  --ink: light-dark(#1c1e21, #e4e6e9); --soft: light-dark(#5f6670, #9aa2ad);
  --line: light-dark(#e1e3e6, #343942); --accent: light-dark(#2456a6, #7fb0ff);
  --bar: light-dark(#dbe7f8, #263a58); --plot: light-dark(#3d74c7, #6d9fee);
  --sub: light-dark(#8a4b00, #ffb454); --sub-back: light-dark(#fff1dc, #3a2b14);
  --del: light-dark(#a3151d, #ff8a8a); --del-back: light-dark(#fde5e5, #3f1d20);
  --ins: light-dark(#1a56a8, #82b7ff); --ins-back: light-dark(#e2edfc, #1b2f4b); }
:root[data-theme=light] { color-scheme: light; }
:root[data-theme=dark] { color-scheme: dark; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", "Noto Sans", "Noto Sans CJK SC", sans-serif; }
header, main { max-width: 1180px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 28px; }
h1 { font-size: 26px; margin: 0 0 8px; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 0 0 10px; }
h3 { font-size: 15px; margin: 0 0 4px; }
nav { display: flex; flex-wrap: wrap; gap: 6px 18px; align-items: center; }
nav button { margin-left: auto; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
section { margin: 26px 0; }
p { margin: 4px 0 10px; }
.soft { color: var(--soft); font-size: 13px; }
button, input { font: inherit; color: inherit; background: var(--card);
  border: 1px solid var(--line); border-radius: 6px; padding: 4px 10px; }
code { font: 13px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
.line { display: block; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; padding: 10px 14px; white-space: pre-wrap; }
.warning { border: 1px solid var(--sub); border-left-width: 6px; background: var(--sub-back);
  border-radius: 8px; padding: 10px 14px; margin: 10px 0; }
.warning.red { border-color: var(--del); background: var(--del-back); }
.warning strong { color: var(--sub); }
.warning.red strong { color: var(--del); }
.cards { display: flex; flex-wrap: wrap; gap: 12px; margin-bottom: 14px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 10px 16px; flex: 1 1 150px; }
.card b { display: block; font-size: 24px; font-weight: 650; line-height: 1.3;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.grid { display: grid; gap: 26px; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(var(--least, 500px), 100%), 1fr)); }
.grid.three { --least: 300px; }
.grid > * { min-width: 0; }
.scroll { overflow: auto; max-height: 460px; border: 1px solid var(--line); border-radius: 8px;
  background: var(--card); }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th { position: sticky; top: 0; background: var(--card); text-align: left;
  box-shadow: inset 0 -1px var(--line); padding: 0; }
th button { border: 0; background: none; width: 100%; padding: 6px 8px; font-weight: 600;
  text-align: inherit; cursor: pointer; white-space: nowrap; }
th.number button { text-align: right; }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
td { padding: 4px 8px; border-top: 1px solid var(--line); overflow-wrap: anywhere; }
td:first-child { min-width: 8em; }
tbody tr:hover td { box-shadow: inset 0 0 0 99px color-mix(in srgb, var(--ink) 5%, transparent); }
tfoot td { font-weight: 600; border-top: 2px solid var(--line); }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.bar { background: linear-gradient(to left, var(--bar) var(--share), transparent var(--share)); }
svg { width: 100%; height: auto; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; }
svg text { fill: var(--soft); font-size: 12px; }
svg .value { fill: var(--ink); font-weight: 600; font-size: 11px; }
svg .axis { stroke: var(--line); }
svg .ideal { stroke: var(--soft); stroke-dasharray: 5 4; }
svg .whisker { stroke: var(--ink); stroke-width: 2; }
svg .mark { fill: var(--plot); }
svg .curve { fill: none; stroke: var(--del); stroke-width: 2; }
svg .point { fill: var(--del); }
figure { margin: 0; }
figcaption { font-weight: 600; margin-bottom: 6px; }
.tools { display: flex; flex-wrap: wrap; gap: 10px 16px; align-items: center; margin: 0 0 12px; }
.tools label { flex: 0 1 420px; display: flex; gap: 8px; align-items: center; }
.tools input { flex: 1; }
article { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 10px 16px; margin: 0 0 12px; }
article .facts { color: var(--soft); font-size: 13px; margin: 0; }
article audio { width: 100%; height: 34px; margin: 6px 0 0; }
.badge { border: 1px solid var(--del); color: var(--del); border-radius: 10px; padding: 0 8px;
  font-size: 12px; }
.steps { line-height: 3.6; margin: 0; overflow-wrap: anywhere; }
.steps .gap { color: var(--soft); font-style: italic; font-size: 13px; }
.error { display: inline-grid; grid-template-columns: auto auto; vertical-align: middle;
  line-height: 1.35; border-radius: 5px; padding: 0 6px 0 0; margin: 0 2px; overflow: hidden;
  text-align: center; }
.error b { grid-row: span 2; align-self: stretch; display: grid; place-items: center;
  padding: 0 5px; margin-right: 6px; font-size: 11px; }
.error del, .error ins { unicode-bidi: isolate; }
.error ins { text-decoration-thickness: 2px; }
.error .none { color: var(--soft); text-decoration: none; }
.error.S { background: var(--sub-back); color: var(--sub); }
.error.D { background: var(--del-back); color: var(--del); }
.error.I { background: var(--ins-back); color: var(--ins); }
.error b { background: color-mix(in srgb, currentColor 18%, transparent); }
"""

SCRIPT = """
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstChild.addEventListener("click", () => {
    const rows = [...table.tBodies[0].rows];
    const value = row => row.cells[column].dataset.value;
    const numeric = rows.some(row => value(row) !== undefined);
    const before = head.getAttribute("aria-sort");
    const order = before ? (before === "ascending" ? -1 : 1) : (numeric ? -1 : 1);
    rows.sort((a, b) => {
      const [left, right] = [a, b].map(row => row.cells[column].textContent);
      if (!numeric) return order * left.localeCompare(right);
      const [x, y] = [value(a), value(b)];
      if (!x || !y) return !x - !y;
      return order * (x - y);
    });
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order > 0 ? "ascending" : "descending");
    table.tBodies[0].append(...rows);
  }));
}
const filter = document.getElementById("filter");
const cards = [...document.querySelectorAll("article")]
  .map(card => [card, card.textContent.toLowerCase()]);
filter.addEventListener("input", () => {
  const wanted = filter.value.toLowerCase().split(/\\s+/).filter(Boolean);
  let shown = 0;
  for (const [card, text] of cards) {
    card.hidden = !wanted.every(word => text.includes(word));
    shown += !card.hidden;
  }
  document.getElementById("matches").textContent = shown + " of " + cards.length + " match";
});
document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme
    ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
"""
