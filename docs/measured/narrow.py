"""The claims of "When Expressivity Meets Trainability", on nets of one hidden layer and on images."""

from __future__ import annotations

from typing import Any

from measured.claims import AGREES, NOT, Claim, at_least, at_most, numbers
from measured.reading import experiment, figure, short, whole_record


def figure4() -> list[Claim]:
    """Figure 4: the pairwise net with κ of the paper and without, the standard net."""
    names = ("narrow_fig4", "narrow_fig4_kappa1")
    both = {"∞": figure(names[0]), "1": figure(names[1])}
    pgd, scaled, solver = "PGD", "PGD in ball coordinates", "KKT solver"
    wide, small = (20, 40), (0.1, 0.3, 1.0)

    def regime(field: str = "loss", **wanted: Any) -> list[float]:
        return [x for cells in both.values() for x in numbers(cells, field, net=["pairwise"], **wanted)]

    def usual(field: str = "loss", **wanted: Any) -> list[float]:
        return numbers(both["∞"], field, net=["standard"], **wanted)

    ball = regime(method=[scaled], width=wide, radius=small)
    free = {"width": (12, *wide), "radius": [1000.0]}
    found = [
        (
            "Figure 4 a: under the constraints the loss is low at every ε from m = 2n/d = 20 on",
            f"m = 20 and 40, κ = 1 and ∞: {at_most(regime(method=[solver], width=wide))} at most at KKT points; "
            f"with ε ≤ 1, {short(min(ball))} (40) to {short(max(ball))} (20) by descent in the coordinates of the ball",
            AGREES,
        ),
        (
            "Projected gradient descent, as the paper writes it, finds these points",
            f"with ε ≤ 1 it stays at {at_least(regime(method=[pgd], radius=small))} and more, at every width and κ: "
            "one step size cannot serve both layers",
            NOT,
        ),
        (
            "Figure 4 b: σ_min of the Jacobian stays away from 0 there",
            f"m = 20 and 40: {at_least(regime('sigma_min', method=[solver], width=wide))} at least at the KKT points",
            AGREES,
        ),
        (
            "Figure 4 c: regular training (ε = 1000) fails when the net is narrow",
            f"standard net, m = 12 to 40: {at_most(usual(method=[pgd], **free))} at most by gradient descent, "
            f"{at_most(usual(method=[scaled], **free))} by Adam; it succeeds by leaving",
            NOT,
        ),
        (
            "Figure 4 c: the standard net fails in a small ball",
            f"ε ≤ 0.3: {at_least(usual(radius=(0.1, 0.3)))} and more by every method and at every width",
            AGREES,
        ),
        (
            "Figure 4 d: the Jacobian of the regular net is singular at ε = 1000",
            f"m = 20 and 40: σ_min is {at_least(usual('sigma_min', width=wide, radius=[1000.0]))} at least",
            NOT,
        ),
    ]
    return [Claim(*claim, experiment("narrow_fig4", "[--kappa 1]"), names) for claim in found]


def theorems() -> list[Claim]:
    """Theorems 1 and 2, and which ingredient does what."""
    one, deep = figure("narrow_theorem1"), figure("deep_theorem1")
    solved = [r for r in one if r["status"] != "refused"]
    two = {name: figure(f"narrow_theorem2_{name}") for name in ("gaussian", "digits")}
    admitted = {name: whole_record(f"narrow_theorem2_{name}")["settings"]["width_admitted"] for name in two}
    kkt = "; ".join(
        f"{name} samples, m ≥ 2n/d: {at_most(numbers([r for r in cells if r['width'] >= admitted[name]]))} at most"
        for name, cells in two.items()
    )
    narrower = [r for r in two["gaussian"] if r["width"] < admitted["gaussian"]]
    ablation = figure("narrow_ablation")
    eight = {
        (mirrored, paired): max(
            numbers(ablation, mirrored=[mirrored], pairwise=[paired], radius=[0.1], width=[40])
        )
        for mirrored in (True, False)
        for paired in (True, False)
    }
    return [
        Claim(
            "Theorem 1: with m ≥ 2n/d a net of zero loss lies within any ε of the start",
            f"{sum(r['holds'] for r in solved)} of {len(solved)} Gaussian instances found and proven (Newton's method)",
            AGREES,
            experiment("narrow_theorem1"),
            ("narrow_theorem1",),
        ),
        Claim(
            "Section 6: the same for deep nets (left open)",
            f"{sum(r['proven'] for r in deep)} of {len(deep)} nets of one to three hidden layers are proven",
            AGREES,
            experiment("deep_theorem1", "--raw-dir DIR"),
            ("deep_theorem1",),
        ),
        Claim(
            "Theorem 2: the loss of KKT points is O(ε²)",
            f"{kkt.capitalize()}, where no law of ε is left to see; m < 2n/d: {short(max(numbers(narrower)))} at "
            "ε = 0.001, and no ε² law either",
            AGREES,
            experiment("narrow_theorem2", "[--dataset digits]"),
            tuple(f"narrow_theorem2_{name}" for name in two),
        ),
        Claim(
            "Mirrored start, pairwise head and ball go together",
            f"n = 100, m = 40, ε = 0.1: {short(eight[True, True])} with all three, {short(eight[True, False])} without "
            f"the head, {short(eight[False, True])} and {short(eight[False, False])} without the start",
            AGREES,
            experiment("narrow_ablation"),
            ("narrow_ablation",),
        ),
        Claim(
            "With κ = 1 the output weights never touch the boundary of their cone",
            "κ = 1 is v_i = v_j: the cone has no interior, and every v lies on its boundary",
            NOT,
            experiment("narrow_fig4", "--kappa 1"),
            ("narrow_fig4_kappa1",),
        ),
    ]
