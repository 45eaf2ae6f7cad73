"""Draw what `benchmarks/cif.py` measured: time against length and width, and distance to the floor.

One row of panels for each pass. All axes are logarithmic: linear time is a line of slope 1.
"""

import csv
from pathlib import Path
from typing import Any

PASSES = ("forward", "forward+backward")
PANELS = (  # series, abscissa, ordinate
    ("frames", "T", "median_ms"),
    ("width", "D", "median_ms"),
    ("frames", "T", "ratio_to_floor"),
)
LABELS = {
    "T": "frames T",
    "D": "width D",
    "median_ms": "median time of a call, ms",
    "ratio_to_floor": "time / floor",
}
FIXED = {"T": ("B", "D"), "D": ("B", "T")}
# Colours that differ in lightness too (Okabe and Ito); ours are solid, the others dashed.
OURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
OTHERS = ("#555555", "#999999", "#BB9955")
FLOOR = "#000000"
MARKERS = "osD^vP"

Row = dict[str, str]


def draw(results: Path, device: str) -> Path | None:
    """Write `cif_<device>.png` from the run with the fewest threads; nothing without sweeps."""
    with (results / "cif.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["device"] == device and row["median_ms"]]
    threads = min((row["threads"] for row in rows), key=int, default="")
    rows = [row for row in rows if row["threads"] == threads]
    if not any(row["series"] == "frames" for row in rows):
        return None
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no plot without matplotlib: pip install matplotlib")
        return None
    figure = Figure(figsize=(15, 8.4), layout="constrained")
    axes = figure.subplots(len(PASSES), len(PANELS))
    styles = _styles(list(dict.fromkeys(row["implementation"] for row in rows)))
    for line, which in enumerate(PASSES):
        for column, panel in enumerate(PANELS):
            chosen = [row for row in rows if row["pass"] == which and row["series"] == panel[0]]
            _panel(axes[line][column], chosen, which, panel, styles)
    handles = {
        text: handle
        for axis in axes.flat
        for handle, text in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=8, frameon=False
    )
    first = rows[0]
    unit = "CUDA events" if device == "cuda" else f"threads: {threads}"
    figure.suptitle(
        f"CIF on {first['machine']} ({unit}, {first['dtype']}, torch {first['torch']}, "
        f"commit {first['commit']})"
    )
    path = results / f"cif_{device}.png"
    figure.savefig(path, dpi=100)
    return path


def _styles(names: list[str]) -> dict[str, dict[str, Any]]:
    """Give each implementation a colour, a line and a marker, the same in all panels."""
    ours = [name for name in names if name.startswith("llmasr")]
    others = [name for name in names if name not in ours and name != "floor"]
    styles: dict[str, dict[str, Any]] = {"floor": {"color": FLOOR, "linewidth": 1.2, "ls": ":"}}
    for group, colours, line in ((ours, OURS, "-"), (others, OTHERS, "--")):
        for index, name in enumerate(group):
            styles[name] = {
                "color": colours[index % len(colours)],
                "ls": line,
                "marker": MARKERS[index % len(MARKERS)],
                "markersize": 5,
                "linewidth": 1.8,
            }
    return styles


def _panel(
    axis: Any, rows: list[Row], which: str, panel: tuple[str, str, str], styles: dict[str, Any]
) -> None:
    _, along, up = panel
    for name, style in styles.items():
        points = [
            (int(row[along]), float(row[up])) for row in rows if row["implementation"] == name
        ]
        if points:
            axis.plot(*zip(*sorted(points), strict=True), label=name, **style)
    axis.set(xscale="log", yscale="log", xlabel=LABELS[along], ylabel=LABELS[up])
    ticks = sorted({int(row[along]) for row in rows})
    axis.set_xticks(ticks, labels=[f"{tick:,}".replace(",", " ") for tick in ticks])
    axis.minorticks_off()
    axis.grid(True, color="#DDDDDD", linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    if rows:
        held = ", ".join(f"{name} = {rows[0][name]}" for name in FIXED[along])
        axis.set_title(f"{which}, {held}", fontsize=11)
