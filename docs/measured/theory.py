"""What the papers on pyramids and on depth and width claim, what was found, and a verdict."""

from __future__ import annotations

import itertools
import math

from experiments.depth_width_fig1 import Step, comparisons
from experiments.depth_width_starts import chosen, mean_and_error
from experiments.depth_width_theorem2 import NOISE, PLAIN, SEPARATED, T, gap_bounded, of
from experiments.pyramidal_lecun import crossing
from measured.claims import Claim, seen
from measured.reading import figure, short, whole, whole_record

ROUNDING = 1e-9
"""Shares of ½‖Y‖² below which two values of float64 are the same."""


def pyramidal() -> list[Claim]:
    """Theorem 3.2, LeCun's start, Theorem 3.3 and Lemma 3.4."""
    cases = figure("pyramidal_convergence")
    kept = [r["paper"]["never_exceeded"] and r["paper"]["broken_invariant"] is None for r in cases]
    fastest, slowest = (pick(r["paper"]["steps_to_1e-4"] for r in cases) for pick in (min, max))
    widths = "; ".join(f"{r['case']}: n₁ = {r['widths'][0]}" for r in cases if r["certified"])
    return [
        Claim(
            "Theorem 3.2: from a start with (4) and (5), gradient descent with the certified step stays below "
            "(1 − ηα₀)^k Φ(θ₀)",
            f"never exceeded, and no invariant breaks, in {sum(kept)} of {len(kept)} cases; a factor of 1e4 is "
            f"certified in {short(fastest)} to {short(slowest)} steps",
            seen(kept),
            ("pyramidal_convergence",),
        ),
        Claim(
            "Section 3.1: one layer of width N is enough for a start with (4) and (5)",
            f"starts found and certified with {widths}",
            seen(r["certified"] for r in cases),
            ("pyramidal_convergence",),
        ),
        lecun(),
        *lambda_star(),
    ]


def lecun() -> Claim:
    """Section 3.2: LeCun's start."""
    cells = figure("pyramidal_lecun")
    two = [r for r in cells if r["layers"] == 2]
    largest = max(m["width"] for r in cells for m in r["measured"])
    held = sum(m["holds"] for r in cells for m in r["measured"])
    growing = [math.isfinite(crossing(r["measured"])) for r in cells]  # both margins rise with the width
    reached = [any(m["holds"] for m in r["measured"]) for r in cells]
    expected = ", ".join(f"{float(r['log10_width']):.0f}" for r in two)
    sharper = [f"N = {r['samples']} from {r['sharper']}" for r in two if r["sharper"] is not None]
    pairs = [str(r["pair"]) for r in two if r["pair"] is not None]
    return Claim(
        "Section 3.2: with LeCun's start a first layer of width Ω(N² 2^{O(L)}/λ*²) is enough",
        f"(4) and (5) are expected from n₁ = 10^({expected}) on for N = {', '.join(str(r['samples']) for r in two)}, "
        f"L = 2; they hold in {held} of the draws up to n₁ = {whole(largest)}, and their margins grow with n₁ for "
        f"{sum(growing)} of {len(cells)} N and L. The sharper constants hold for {'; '.join(sharper) or 'none'}; a "
        f"mirrored pair needs {', '.join(pairs)} units",
        seen((*reached, *growing)),
        ("pyramidal_lecun",),
    )


def lambda_star() -> list[Claim]:
    """Theorem 3.3 and Lemma 3.4."""
    cells = figure("pyramidal_lambda_star")
    stars = [
        r for r in cells if r["kind"] == "lambda_star" and r["activation"] == "smooth_leaky_relu(0.5, 1.0)"
    ]
    least = {
        d: min(r["value"] for r in stars if r["inputs"] == d and r["samples"] == d**2)
        for d in sorted({r["inputs"] for r in stars})
    }
    met, [inputs] = {}, {r["inputs"] for r in cells if "power" in r}
    lemma = [r["over_lemma"] >= 1 for r in cells if "power" in r and r["samples"] <= inputs ** r["power"]]
    for power in (2, 3):
        over = [r for r in cells if r.get("power") == power]
        failed = min((r["samples"] for r in over if r["over_lemma"] < 1), default=math.inf)
        met[power] = (
            max((r["samples"] for r in over if r["samples"] < failed), default=0),
            min(r["samples"] for r in over if r["value"] == 0),
        )
    said = "; ".join(
        f"r = {r}: up to N = {kept}, and σ_min is 0 from N = {zero}" for r, (kept, zero) in met.items()
    )
    return [
        Claim(
            "Theorem 3.3: λ* stays away from 0 as N grows with N ≤ d^k",
            f"λ* at N = d² for d = {', '.join(map(str, least))}: {', '.join(map(short, least.values()))}",
            seen(after >= before > 0 for before, after in itertools.pairwise(least.values())),
            ("pyramidal_lambda_star",),
        ),
        Claim(
            "Lemma 3.4: σ_min(X^{*r}) ≥ d^{r/2}/2 for N ≤ d^r, with high probability",
            f"d = {inputs}, every draw: {said}. X^{{*r}} has C(d + r − 1, r) < d^r different columns; its probability "
            "says nothing where N is near d^r",
            seen(lemma),
            ("pyramidal_lambda_star",),
        ),
    ]


DATASETS = {"synthetic": "synthetic", "mnist": "MNIST", "cifar10": "CIFAR-10", "svhn": "SVHN (subset)"}


def rises(steps: list[Step]) -> str:
    """Say how often J rises, and how often by more than two standard errors, which one seed does not have."""
    rising = [step for step in steps if step.rise > ROUNDING]
    return f"rises in {len(rising)} of {len(steps)} ({sum(map(risen, steps))} beyond two standard errors)"


def risen(step: Step) -> bool:
    """Return whether J clearly rises."""
    return bool(step.rise > ROUNDING and step.clear)


def never_risen(steps: list[Step]) -> str:
    """Return whether J decreases: whether, in the steps of two seeds or more, it never clearly rises."""
    return seen(not risen(step) for step in steps if not math.isnan(step.error))


def figure1() -> list[Claim]:
    """Figure 1, by width, depth and training."""
    steps = {name: comparisons(figure(f"depth_width_fig1_{name}")) for name in DATASETS}
    names = tuple(f"depth_width_fig1_{name}" for name in DATASETS)

    def along(what: str, *times: str) -> dict[str, list[Step]]:
        return {
            name: [step for step in of_set if step.along == what and step.when in times]
            for name, of_set in steps.items()
        }

    def said(found: dict[str, list[Step]]) -> str:
        return "; ".join(f"{DATASETS[name]} {rises(of_set)}" for name, of_set in found.items())

    def judged(found: dict[str, list[Step]]) -> str:
        return never_risen([step for of_set in found.values() for step in of_set])

    trained, times = along("training", "trained"), ("initial", "trained")
    by_width, by_depth = ({when: said(along(what, when)) for when in times} for what in ("width", "depth"))
    return [
        Claim(
            "Figure 1: J decreases with width",
            f"At the start: {by_width['initial']}. After training: {by_width['trained']}",
            judged(along("width", *times)),
            names,
        ),
        Claim(
            "Figure 1: J decreases with depth",
            f"After training: {by_depth['trained']}. At the start: {by_depth['initial']}. {starts()}",
            judged(along("depth", *times)),
            (*names, "depth_width_starts"),
        ),
        Claim("Figure 1: J decreases with training", said(trained), judged(trained), names),
    ]


def starts() -> str:
    """Say what depth does at the start."""
    content = whole_record("depth_width_starts")
    s, depths = content["settings"], (1, 5)

    def means(activation: str, width: int) -> list[str]:
        cells = chosen(content["cells"], activation=activation, width=width)
        return [f"{mean_and_error(chosen(cells, depth=depth))[0]:.2f}" for depth in depths]

    relu, folded = means("relu", 4), means("|z|", 12)
    return (
        f"Means of {s['seeds']} seeds at depths {depths[0]} and {depths[1]}, of ½‖Y‖², at the start: narrow ReLU nets "
        f"(width 4) {relu[0]} and {relu[1]}. The synthetic target is {1 - s['linear']:.0%} linear, which the first "
        "layer's columns of D nearly reach and the gates above cut; with |z|, which cuts nothing, width 12, "
        f"{folded[0]} and {folded[1]}. The scale of the weights cannot be the reason: J does not change with it"
    )


def depth_width() -> list[Claim]:
    """Theorems 1 and 2, Proposition 2."""
    cells = figure("depth_width_theorem2")
    separated, noise = of(cells, SEPARATED), of(cells, NOISE)
    nets = separated + of(cells, PLAIN)
    still = [r for r in nets if r["stationary"]]
    bounded, gaps = [gap_bounded(r) for r in nets], [r["gap"] / r["baseline"] for r in still]
    inside = [r for r in separated if r["in_theorem"]]
    kept, moving = ([r["within"] for r in inside if r["stationary"] is there] for there in (True, False))
    widest = [r for r in nets if r["width"] == max(r["width"] for r in nets)]
    allowed, records = 2 * math.exp(-T), ("depth_width_theorem2",)
    return [
        Claim(
            "Theorem 1, Proposition 1: L = J at every differentiable local minimum",
            f"L − J ≤ ½(‖∇L‖/σ_r)² in {sum(bounded)} of {len(nets)} nets; {len(still)} end at a differentiable "
            f"stationary point, L − J there is {short(max(gaps), 1)} of ½‖Y‖² at most. The others end between pieces: "
            f"at width {widest[0]['width']} {sum(r['stationary'] for r in widest)} of {len(widest)} nets end at such a "
            "point",
            seen((*bounded, *(gap < ROUNDING for gap in gaps))),
            records,
        ),
        Claim(
            "Theorem 2, Corollary 1: with separated linear units a local minimum is at most basis-function regression",
            f"{sum(kept)} of {len(kept)} differentiable stationary points with such units are within the bound; of "
            f"{len(moving)} ends of training that are not stationary {sum(moving)} are",
            seen(kept),
            records,
        ),
        Claim(
            "Proposition 2: on white noise the loss is about 1 − dm/n of ½‖Y‖²",
            f"the mean agrees within three standard errors at {sum(r['holds'] for r in noise)} of {len(noise)} widths; "
            f"the bound is exceeded in {max(r['exceeded'] for r in noise):.0%} of the trials at most ({allowed:.0%} "
            "are allowed). The sizes that the proof asks for are met at "
            f"{sum(r['size_condition'] for r in noise)} of them",
            seen(r["holds"] and r["exceeded"] <= allowed for r in noise),
            records,
        ),
    ]
