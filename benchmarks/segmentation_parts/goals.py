"""The figures that were asked for, measured or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]

RENDERED, REAL = "rendered", "real"
FRANGI = {"dice": "Frangi, best Dice", "cldice": "Frangi, best clDice"}

_BASELINE, _OURS, _STUDENT = "light_unet", "vpbsd", "student"
_COMPETITORS = ("kd", "fitnets", "vid", "ab", "mean_teacher", "uamt", "entropy")
_TRAININGS = 3


def goals(rows: Sequence[Row]) -> list[Row]:
    """Return what was asked for; ``met`` is None for what was not measured.

    Of points above a method ``ceiling`` tells how many are left up to 1. ``trainings`` tells the
    fewest that a mean is of, where three or more were asked for. Where only some of the competitors
    are there, the goal may be missed already, but is not met.
    """
    ours = {row["masks"] for row in rows if (row["case"], row["method"]) == (RENDERED, _OURS)}
    # Masks of another kind are another truth.
    same = [row for row in rows if row["case"] != RENDERED or not ours or row["masks"] in ours]
    by = {(row["case"], row["method"]): row for row in same}
    found = []
    for name in ("dice", "cldice"):
        pair = [(RENDERED, _OURS), (RENDERED, _BASELINE)]
        points, more = _points(by, pair, name)
        said = f"rendered: points of {name} of {_OURS} above {_BASELINE}"
        found.append(_goal(said, points, 1.5, **more, **_trainings(by, pair)))
    for name in ("dice", "cldice"):
        found.append(_beyond_competitors(by, name))
    points, more = _points(by, [(REAL, _STUDENT), (REAL, FRANGI["cldice"])], "cldice")
    found.append(_goal("real: student's points of clDice above Frangi's best", points, 5.0, **more))
    student = by.get((REAL, _STUDENT))
    absent = [] if student else [f"{REAL}: {_STUDENT}"]
    found.append(_goal("real: student's Dice", student and student["dice"], 0.8, missing=absent))
    return found


def verdict(goal: Row) -> str:
    """Return a line that tells a goal, and whether it is met."""
    if goal["value"] is None:
        reached = "not measured"
    else:
        met = {True: "met", False: "MISSED", None: "not settled"}[goal["met"]]
        reached = f"{goal['value']} {goal['op']} {goal['goal']}: {met}"
    if goal.get("ceiling") is not None:
        reached += f"; no more than {goal['ceiling']} are left up to 1"
    if goal.get("missing"):
        reached += f"; not there: {', '.join(goal['missing'])}"
    if goal.get("trainings", _TRAININGS) < _TRAININGS:
        reached += f"; {goal['trainings']} of {_TRAININGS} trainings"
    return f"{goal['name']}: {reached}"


def _goal(name: str, value: float | None, goal: float, **more: Any) -> Row:
    met = None if value is None else value >= goal
    return {"name": name, "value": value, "op": ">=", "goal": goal, "met": met, **more}


def _points(
    by: dict[tuple[str, str], Row], pair: Sequence[tuple[str, str]], name: str
) -> tuple[float | None, dict[str, Any]]:
    """Return points of the first above the second, and what else there is to tell of that."""
    ours, other = (by.get(one) for one in pair)
    more: dict[str, Any] = {
        "missing": [f"{case}: {method}" for case, method in pair if (case, method) not in by]
    }
    if other:
        more["ceiling"] = round(100 * (1 - other[name]), 2)
    if not ours or not other:
        return None, more
    return round(100 * (ours[name] - other[name]), 2), more


def _beyond_competitors(by: dict[tuple[str, str], Row], name: str) -> Row:
    """Return the goal of not being below any competitor by more than the larger spread of both."""
    named = [(RENDERED, other) for other in _COMPETITORS]
    there = [one for one in named if one in by]
    ours = by.get((RENDERED, _OURS))
    missing = [
        f"{case}: {method}"
        for case, method in [(RENDERED, _OURS), *named]
        if (case, method) not in by
    ]
    values = [_beyond_spread(ours, by[one], name) for one in there] if ours else []
    said = f"rendered: points of {name} of {_OURS} above the best competitor's less spread"
    goal = _goal(said, min(values, default=None), 0.0, missing=missing)
    if goal["met"] and missing:
        goal["met"] = None
    return goal | _trainings(by, [(RENDERED, _OURS), *there])


def _beyond_spread(ours: Row, other: Row, name: str) -> float:
    """Return points above another method, and above the larger spread of both over trainings."""
    spread = max(ours.get(f"{name}_sd", 0.0), other.get(f"{name}_sd", 0.0))
    return round(100 * (ours[name] - other[name] + spread), 2)


def _trainings(by: dict[tuple[str, str], Row], among: Sequence[tuple[str, str]]) -> dict[str, int]:
    counts = [by[one]["trainings"] for one in among if one in by]
    return {"trainings": min(counts)} if counts else {}
