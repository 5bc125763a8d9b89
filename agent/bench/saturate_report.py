"""What the loads come to: the rows that have a bound, and a table of all loads. Pure."""

from collections.abc import Sequence

from agent.bench.row import Row
from agent.bench.saturate_load import Load, must_leave, quantile

_COLUMNS = (
    *("load", "cloud", "jobs", "here", "in the cloud", "refused", "late", "in time"),
    *("refused in p50, p99", "goodput", "busy", "took p50, p90"),
)


def rows(loads: Sequence[Load]) -> list[Row]:
    """Hold the loads against their bounds.

    Args:
        loads: 0.5 x with cloud, and 4 x with and without, among others.

    """
    by = {(load.factor, load.cloud): load for load in loads}
    return [*_calm(by[0.5, True]), *_with_cloud(by[4, True]), *_without(by[4, False]), *_predicted(loads)]


def _calm(load: Load) -> list[Row]:
    oracle = must_leave((each.due_s for each in load.told), load.yardstick)
    detail = (
        f"of {len(load.told)} jobs, of which an oracle sends {oracle}, and of endlessly many 2.7 %: "
        "so often chance crowds them"
    )
    return [Row("0.5 x: jobs sent to the cloud", load.sent, "", 0, "at most", detail)]


def _with_cloud(load: Load) -> list[Row]:
    here, there = len(load.answered("local")), len(load.answered("cloud"))
    detail = f"{here} here and {there} in the cloud of {len(load.told)}, {len(load.refused)} refused, {load.late} late"
    return [
        Row("4 x with cloud: answered within the deadline", load.within * 100, "%", 99, "at least", detail),
        Row(
            "4 x with cloud: the local engine's busy share",
            load.busy * 100,
            "%",
            90,
            "at least",
            f"of {load.seconds:.0f} s in which jobs came; from `started` to the final, as a client hears them",
        ),
    ]


def _without(load: Load) -> list[Row]:
    answers = [each.took_s * 1000 for each in load.refused]
    return [
        Row(
            "4 x without cloud: jobs answered in time, against the capacity",
            load.goodput,
            "x",
            0.9,
            "at least",
            f"{len(load.answered('local'))} of {len(load.told)}, {len(load.refused)} refused, {load.late} late",
        ),
        Row(
            "4 x without cloud: request published → refused: p99",
            quantile(answers, 0.99),
            "ms",
            50,
            "at most",
            f"{len(answers)} refusals, p50 {quantile(answers, 0.5):.3g} ms",
        ),
    ]


def _predicted(loads: Sequence[Load]) -> list[Row]:
    found = []
    for where, name in (("local", "here"), ("cloud", "in the cloud")):
        ran = [each for load in loads for each in load.told if each.where == where]
        errors = [error * 100 for load in loads for error in load.misjudged(where)]
        what = f"predicted end of a job admitted to run {name}, against the real one"
        detail = f"{len(errors)} of {len(ran)} jobs of all loads, as predicted when they were accepted"
        found += [
            Row(f"{what}: median error", quantile(errors, 0.5), "%", 15, "at most", detail),
            Row(f"{what}: p90", quantile(errors, 0.9), "%", 40, "at most", detail),
        ]
    return found


def measure(loads: Sequence[Load]) -> str:
    """Say what the loads are multiples of."""
    boxes = dict.fromkeys((load.cloud, load.yardstick) for load in loads)
    said = [
        f"of the box {'with a' if cloud else 'without'} cloud {own.lone_s:.3g} s and {own.capacity:.3g} jobs/s"
        for cloud, own in boxes
    ]
    return f"A lone job's time and the capacity: {', '.join(said)}."


def table(loads: Sequence[Load]) -> str:
    """Write the loads as a Markdown table."""
    lines = [f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|"]
    for load in loads:
        took = [each / load.yardstick.lone_s for each in load.took_s]
        refusals = [each.took_s * 1000 for each in load.refused]
        cells = [
            f"{load.factor:g} x",
            "yes" if load.cloud else "no",
            str(len(load.told)),
            str(len(load.answered("local"))),
            str(len(load.answered("cloud"))),
            str(len(refusals)),
            str(load.late),
            f"{load.within * 100:.1f} %",
            f"{quantile(refusals, 0.5):.3g}, {quantile(refusals, 0.99):.3g} ms" if refusals else "",
            f"{load.goodput:.2f} x",
            f"{load.busy * 100:.0f} %",
            f"{quantile(took, 0.5):.2f}, {quantile(took, 0.9):.2f} x" if took else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
