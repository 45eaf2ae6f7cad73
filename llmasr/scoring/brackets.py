"""How a confidence interval stands behind a number in print."""

from llmasr.scoring.intervals import CONFIDENCE


def bracket(interval: tuple[float, float] | None, digits: int) -> str:
    """Return ` [95 % CI low to high]`; empty if there is no interval."""
    if interval is None:
        return ""
    low, high = interval
    return f" [{100 * CONFIDENCE:.0f} % CI {low:.{digits}f} to {high:.{digits}f}]"
