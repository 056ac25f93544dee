"""What the papers on pyramids and on depth and width claim, what was found, and a verdict."""

from __future__ import annotations

import itertools
import math
import re
import statistics
from typing import NamedTuple

from scipy import stats

from experiments.depth_width_fig1 import Step, comparisons
from experiments.depth_width_starts import chosen, mean_and_error
from experiments.depth_width_theorem2 import NOISE, PLAIN, SEPARATED, T, gap_bounded, of
from experiments.pyramidal_lecun import crossing
from measured.claims import Claim, judged, seen, together
from measured.reading import Record, figure, short, whole, whole_record

ROUNDING = 1e-9
"""Shares of ½‖Y‖² below which two values of float64 are the same."""
FALLING = 1.1
"""A bound that falls by less than this factor in a run tries nothing."""


def pyramidal() -> list[Claim]:
    """Theorem 3.2, LeCun's start, Theorem 3.3 and Lemma 3.4."""
    cases = figure("pyramidal_convergence")
    kept = [
        r["paper"]["never_exceeded"] and r["paper"]["broken_invariant"] is None
        for r in cases
        if r["paper"]["bound_falls_by"] >= FALLING
    ]
    falls = ", ".join(short(r["paper"]["bound_falls_by"], 5) for r in cases)
    fastest, slowest = (pick(r["paper"]["steps_to_1e-4"] for r in cases) for pick in (min, max))
    widths = "; ".join(f"{r['case']}: n₁ = {r['widths'][0]}" for r in cases if r["certified"])
    return [
        Claim(
            "Theorem 3.2: from a start with (4) and (5), gradient descent with the certified step stays below "
            "(1 − ηα₀)^k Φ(θ₀)",
            f"the bound falls in the runs by factors of {falls}; where by {FALLING} and more it is never exceeded, "
            f"and no invariant breaks, in {sum(kept)} of {len(kept)} cases. A factor of 1e4 is certified in "
            f"{short(fastest)} to {short(slowest)} steps",
            seen(kept),
            ("pyramidal_convergence",),
        ),
        Claim(
            "Section 3.1: one layer of width N is enough for a start with (4) and (5)",
            f"starts found and certified with {widths}",
            seen(r["certified"] for r in cases if r["widths"][0] == samples_of(r)),
            ("pyramidal_convergence",),
        ),
        lecun(),
        *lambda_star(),
    ]


def samples_of(case: Record) -> int:
    """Return N."""
    [found] = re.findall(r"N=(\d+)", case["case"])
    return int(found)


def lecun() -> Claim:
    """Section 3.2: LeCun's start."""
    cells = figure("pyramidal_lecun")
    two = [r for r in cells if r["layers"] == 2]
    largest = max(m["width"] for r in cells for m in r["measured"])
    held = sum(m["holds"] for r in cells for m in r["measured"])
    growing = [math.isfinite(crossing(r["measured"])) for r in cells]  # both margins rise with the width
    drawn = [any(m["holds"] for m in r["measured"]) for r in cells]
    reached = [10 ** float(r["log10_width"]) <= largest for r in cells]
    expected = ", ".join(f"{float(r['log10_width']):.0f}" for r in two)
    sharper = [f"N = {r['samples']} from {r['sharper']}" for r in two if r["sharper"] is not None]
    pairs = [str(r["pair"]) for r in two if r["pair"] is not None]
    return Claim(
        "Section 3.2: with LeCun's start a first layer of width Ω(N² 2^{O(L)}/λ*²) is enough",
        f"(4) and (5) are expected from n₁ = 10^({expected}) on for N = {', '.join(str(r['samples']) for r in two)}, "
        f"L = 2; they hold in {held} of the draws up to n₁ = {whole(largest)}, and their margins grow with n₁ for "
        f"{sum(growing)} of {len(cells)} N and L. The sharper constants hold for {'; '.join(sharper) or 'none'}; a "
        f"mirrored pair needs {', '.join(pairs)} units",
        seen(holds for holds, there in zip(drawn, reached, strict=True) if holds or there),
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


class Change(NamedTuple):
    """What J over ½‖Y‖² does in a step, the mean over all steps: mean and error of the seeds, and where it rises.

    Twice the error bounds a mean of so few seeds as two standard errors bound one of many (Student).
    """

    mean: float
    error: float
    rising: int
    steps: int

    @property
    def verdict(self) -> str:
        """Whether J decreases."""
        return judged(-self.mean, self.error)

    def __str__(self) -> str:
        """Return it in words."""
        error = "one seed" if math.isinf(self.error) else f"± {self.error:.3f}"
        return f"{self.mean:+.3f} ({error}), a rise in {self.rising} of {self.steps}: {self.verdict}"


def change(cells: list[Record], along: str, when: str) -> Change:
    """Return what J does along depth, width or training; each seed is a sample."""

    def steps(records: list[Record]) -> list[Step]:
        return [step for step in comparisons(records) if (step.along, step.when) == (along, when)]

    seeds = sorted({r["seed"] for r in cells})
    means = [
        statistics.fmean(step.rise for step in steps([r for r in cells if r["seed"] == seed]))
        for seed in seeds
    ]
    error = math.inf
    if len(seeds) > 1:
        error = (
            statistics.stdev(means) / math.sqrt(len(seeds)) * float(stats.t.ppf(0.975, len(seeds) - 1)) / 2
        )
    whole = steps(cells)
    return Change(statistics.fmean(means), error, sum(step.rise > ROUNDING for step in whole), len(whole))


def figure1() -> list[Claim]:
    """Figure 1, by width, depth and training."""
    sets = {name: figure(f"depth_width_fig1_{name}") for name in DATASETS}
    names = tuple(f"depth_width_fig1_{name}" for name in DATASETS)

    def along(what: str, when: str) -> dict[str, Change]:
        return {name: change(cells, what, when) for name, cells in sets.items()}

    def said(found: dict[str, Change]) -> str:
        return "; ".join(f"{DATASETS[name]} {of_set}" for name, of_set in found.items())

    def verdict(*found: dict[str, Change]) -> str:
        return together(of_set.verdict for of_sets in found for of_set in of_sets.values())

    trained = along("training", "trained")
    by_width, by_depth = (
        [along(what, when) for when in ("initial", "trained")] for what in ("width", "depth")
    )
    return [
        Claim(
            "Figure 1: J decreases with width",
            f"J over ½‖Y‖² from one width to the next, at the start: {said(by_width[0])}. After training: "
            f"{said(by_width[1])}",
            verdict(*by_width),
            names,
        ),
        Claim(
            "Figure 1: J decreases with depth",
            f"From one depth to the next, after training: {said(by_depth[1])}. At the start: {said(by_depth[0])}. "
            f"{starts()}",
            verdict(*by_depth),
            (*names, "depth_width_starts"),
        ),
        Claim("Figure 1: J decreases with training", said(trained), verdict(trained), names),
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
            f"stationary point, L − J there is {short(max(gaps), 1)} of ½‖Y‖² at most. The others are not stationary: "
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
