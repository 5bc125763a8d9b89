"""The picture: how long answers take, and where jobs end, over the load. The only importer of matplotlib."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent.bench.saturate_load import PATIENCE, Load, quantile
from agent.errors import UsageError, UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FORMATS = (".png", ".svg", ".pdf")
# Okabe and Ito's, which people who confuse red and green can tell apart.
_ENDS = {"in time, here": "#0072B2", "in time, in the cloud": "#56B4E9", "refused": "#BBBBBB", "late": "#D55E00"}
_CASES = ((False, "#000000", "o", "without cloud"), (True, "#009E73", "s", "with cloud"))


def check(path: Path) -> None:
    """See that a picture can be drawn and written, before there is something to draw.

    Raises:
        UserError: matplotlib is not there, or the file cannot be written.

    """
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError("--plot needs matplotlib: install the dev group (pip install --group dev), or leave --plot out")
    if path.suffix not in _FORMATS or not path.parent.is_dir():
        raise UsageError(f"no picture can be written to {path}: name a .png, .svg or .pdf file in a folder that exists")


def draw(loads: Sequence[Load], path: Path) -> None:
    """Draw the loads into a file."""
    from matplotlib.figure import Figure  # noqa: PLC0415  of the dev group, and slow

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    took, ended = figure.subplots(1, 2)
    _took(took, loads)
    _ended(ended, loads)
    figure.savefig(path, dpi=150)


def _took(axes: "Axes", loads: Sequence[Load]) -> None:
    """Draw the time to the final, of jobs that were not refused."""
    for cloud, colour, marker, name in _CASES:
        some = [load for load in loads if load.cloud == cloud]
        for share, line in ((0.5, "-"), (0.9, "--")):
            times = [quantile(load.took_s, share) / load.yardstick.lone_s for load in some]
            label = f"{name}, {'median' if share == 0.5 else 'p90'}"  # noqa: PLR2004  one of the two
            axes.plot(range(len(some)), times, line, color=colour, marker=marker, label=label)
    axes.axhline(PATIENCE, color="black", linewidth=1, linestyle=":")
    axes.annotate("deadline", (0, PATIENCE), xytext=(0, 3), textcoords="offset points", fontsize="small")
    axes.set(title="How long a job takes that is not refused", ylabel="request to final, in a lone job's time")
    axes.set_ylim(0, max(axes.get_ylim()[1], PATIENCE * 1.1))
    _loads(axes, loads)


def _ended(axes: "Axes", loads: Sequence[Load]) -> None:
    """Draw the shares of jobs by how they ended: for each load two bars, without cloud and with."""
    width = 0.36
    for cloud, side in ((False, -1), (True, 1)):
        some = [load for load in loads if load.cloud == cloud]
        places = [number + side * (width / 2 + 0.02) for number in range(len(some))]
        bottoms = [0.0] * len(some)
        for name, colour in _ENDS.items():
            shares = [_share(load, name) for load in some]
            axes.bar(places, shares, width, bottom=bottoms, color=colour, label=None if cloud else name)
            bottoms = [below + share for below, share in zip(bottoms, shares, strict=True)]
        for place in places:
            axes.annotate("cloud" if cloud else "alone", (place, 101), ha="center", fontsize="x-small")
    axes.set(title="How jobs end", ylabel="% of the jobs", ylim=(0, 108))
    _loads(axes, loads)


def _share(load: Load, name: str) -> float:
    counts = {
        "in time, here": len(load.answered("local")),
        "in time, in the cloud": len(load.answered("cloud")),
        "refused": len(load.refused),
        "late": load.late,
    }
    return 100 * counts[name] / len(load.told)


def _loads(axes: "Axes", loads: Sequence[Load]) -> None:
    factors = sorted({load.factor for load in loads})
    axes.set_xticks(range(len(factors)), [f"{factor:g} x" for factor in factors])
    axes.set_xlabel("load, in multiples of what the box can do alone")
    axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2, frameon=False)
