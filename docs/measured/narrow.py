"""The claims of "When Expressivity Meets Trainability", on nets of one hidden layer and on images."""

from __future__ import annotations

import itertools
from typing import Any

from experiments.narrow_theorem2 import KKT
from measured.claims import NOT, Claim, at_least, at_most, numbers, seen
from measured.reading import Record, figure, recorded, short, whole_record

LOW = 0.01
"""Of ½‖y‖², a loss that is low: the constrained nets are far below it, and nets that fail far above."""
SINGULAR = 1e-6
"""A σ_min that is 0 but for rounding; J has entries of order one."""
ZERO = 1e-12
"""A loss that is the solver's floor: no law of ε is left to see there."""


def low(settings: Record) -> float:
    """Return below what a loss is low, with n labels of variance one."""
    return LOW * settings["n"] / 2


def figure4() -> list[Claim]:
    """Figure 4: the pairwise net with κ of the paper and without, the standard net."""
    names = ("narrow_fig4", "narrow_fig4_kappa1")
    both = {"∞": figure(names[0]), "1": figure(names[1])}
    s = whole_record(names[0])["settings"]
    pgd, scaled, solver = "PGD", "PGD in ball coordinates", "KKT solver"
    widths = sorted({r["width"] for r in both["∞"]})
    wide = [m for m in widths if m >= 2 * s["n"] / s["d"]]
    fitting = [m for m in widths if m * (s["d"] + 1) >= s["n"]]  # as many weights as samples
    small, free = (0.1, 0.3, 1.0), {"width": fitting, "radius": [1000.0]}

    def regime(field: str = "loss", **wanted: Any) -> list[float]:
        return [x for cells in both.values() for x in numbers(cells, field, net=["pairwise"], **wanted)]

    def usual(field: str = "loss", **wanted: Any) -> list[float]:
        return numbers(both["∞"], field, net=["standard"], **wanted)

    points, sigma = (regime(field, method=[solver], width=wide) for field in ("loss", "sigma_min"))
    ball = [regime(method=[scaled], width=[m], radius=small) for m in (wide[0], wide[-1])]
    bare = regime(method=[pgd], radius=small)
    regular = [usual(method=[method], **free) for method in (pgd, scaled)]
    leashed = usual(radius=(0.1, 0.3))
    singular = usual("sigma_min", width=wide, radius=[1000.0])
    at = " and ".join(map(str, wide))
    found = [
        (
            f"Figure 4 a: under the constraints the loss of KKT points is low at every ε from m = 2n/d = {wide[0]} on",
            f"½‖y‖² = {s['n'] / 2:g}; m = {at}, κ = 1 and ∞: {at_most(points)} at most at KKT points; "
            f"with ε ≤ 1, by descent in the coordinates of the ball, at most {at_most(ball[0])} "
            f"({wide[0]}) and {at_most(ball[1])} ({wide[-1]})",
            seen(loss < low(s) for loss in points),
        ),
        (
            "Projected gradient descent, as the paper writes it, finds these points",
            f"with ε ≤ 1 it stays at {at_least(bare)} and more, at every width and κ: one step size cannot serve both "
            "layers",
            seen(loss < low(s) for loss in bare),
        ),
        (
            "Figure 4 b: σ_min of the Jacobian stays away from 0 there",
            f"m = {at}: {at_least(sigma)} at least at the KKT points",
            seen(value > SINGULAR for value in sigma),
        ),
        (
            "Figure 4 c: regular training (ε = 1000) fails when the net is narrow",
            f"standard net, m = {fitting[0]} to {fitting[-1]}, as many weights as samples or more: "
            f"{at_most(regular[0])} at most by gradient descent, {at_most(regular[1])} by Adam",
            seen(loss > low(s) for of_method in regular for loss in of_method),
        ),
        (
            "Figure 4 c: the standard net fails in a small ball",
            f"ε ≤ 0.3: {at_least(leashed)} and more by every method and at every width",
            seen(loss > low(s) for loss in leashed),
        ),
        (
            "Figure 4 d: the Jacobian of the regular net is singular at ε = 1000",
            f"m = {at}: σ_min is {at_least(singular)} at least",
            seen(value <= SINGULAR for value in singular),
        ),
    ]
    return [Claim(*claim, names) for claim in found]


def theorems() -> list[Claim]:
    """Theorems 1 and 2, and which ingredient does what."""
    return [theorem1(), deep(), theorem2(), ingredients(), boundary()]


def theorem1() -> Claim:
    """Theorem 1: instances from the width on that it asks for, and those below."""
    cells = figure("narrow_theorem1")
    wide, below = (
        [r["holds"] for r in cells if (r["width"] >= r["width_needed"]) is enough] for enough in (True, False)
    )
    return Claim(
        "Theorem 1: with m ≥ 2n/d a net of zero loss lies within any ε of the start",
        f"{sum(wide)} of {len(wide)} Gaussian instances found and proven (Newton's method), of {len(below)} with "
        f"m < 2n/d {sum(below)}",
        seen(wide),
        ("narrow_theorem1",),
    )


def deep() -> Claim:
    """Theorem 1 for deep nets."""
    cells = figure("deep_theorem1")
    layers = [r["depth"] for r in cells]
    missing = [
        f"{r['dataset'].split(',')[0]} with n = {r['n']:,} in {r['depth']} layers"
        for r in cells
        if not r["proven"]
    ]
    return Claim(
        "Section 6: the same for deep nets (left open)",
        f"{len(cells) - len(missing)} of {len(cells)} nets of {min(layers)} to {max(layers)} hidden layers are proven"
        + (f", not that of {' and '.join(missing)}" if missing else ""),
        seen(r["proven"] for r in cells),
        ("deep_theorem1",),
    )


def theorem2() -> Claim:
    """Theorem 2: on every data set that has a record."""
    names = recorded("narrow_theorem2_")
    told, facts, losses = [], [], []
    for content in map(whole_record, names):
        s = content["settings"]
        wide, below = (
            [r for r in content["cells"] if (r["width"] >= s["width_admitted"]) is enough]
            for enough in (True, False)
        )
        points = [r for r in wide if r["residual"] <= KKT]
        facts += [r["loss"] <= float(r["radius"]) ** 2 for r in points if float(r["radius"]) < 1]
        most = f"{at_most(numbers(points))} at most at" if points else "no loss of"
        losses += numbers(points)
        told.append(
            f"{s['dataset']}: {most} {len(points)} KKT points of {len(wide)} runs with m ≥ 2n/d{narrower(below)}"
        )
    if max(losses, default=0) <= ZERO:
        told.append("zero but for rounding is below ε², and leaves no law of ε to see")
    return Claim("Theorem 2: the loss of KKT points is O(ε²)", "; ".join(told), seen(facts), tuple(names))


def narrower(records: list[Record]) -> str:
    """Say what the loss of KKT points is at the smallest and the largest radius at which it is positive, if at any."""
    points = [r for r in records if r["residual"] <= KKT and r["loss"] > ZERO]
    if not points:
        return ""
    ends = (pick(points, key=lambda r: float(r["radius"])) for pick in (min, max))
    return ", with m < 2n/d " + " and ".join(
        f"{short(r['loss'])} at ε = {float(r['radius']):g}" for r in ends
    )


def ingredients() -> Claim:
    """The mirrored start, the pairwise head and the ball, at every width from 2n/d on and in every ball."""
    content = whole_record("narrow_ablation")
    s, cells = content["settings"], content["cells"]
    wide = sorted({r["width"] for r in cells if r["width"] >= 2 * s["n"] / s["d"]})
    balls = sorted({r["radius"] for r in cells} - {"inf"})

    def losses(width: int, radius: float | str) -> dict[tuple[bool, bool], float]:
        four = itertools.product((True, False), repeat=2)
        of = {"width": [width], "radius": [radius]}
        return {(m, p): max(numbers(cells, mirrored=[m], pairwise=[p], **of)) for m, p in four}

    alone = {
        point: all((loss < low(s)) is all(having) for having, loss in losses(*point).items())
        for point in itertools.product(wide, balls)
    }
    width, radius = max(wide), sorted(balls)[len(balls) // 2]
    there, free = losses(width, radius), [loss for m in wide for loss in losses(m, "inf").values()]
    return Claim(
        "Mirrored start, pairwise head and ball go together",
        f"n = {s['n']}, m ≥ 2n/d: with all three and only so the loss is low in {sum(alone.values())} of {len(alone)} "
        f"pairs of m and ε. At m = {width}, ε = {radius:g}: {short(there[True, True])} with all three, "
        f"{short(there[True, False])} without the head, {short(there[False, True])} and {short(there[False, False])} "
        f"without the start. Without a ball {at_most(free)} at most by any of them",
        seen(alone.values()),
        ("narrow_ablation",),
    )


def boundary() -> Claim:
    """The cone of κ = 1."""
    return Claim(
        "With κ = 1 the output weights never touch the boundary of their cone",
        "κ = 1 is v_i = v_j: the cone has no interior, and every v lies on its boundary",
        NOT,  # mathematics, not a measurement: no record can change it
        ("narrow_fig4_kappa1",),
    )
