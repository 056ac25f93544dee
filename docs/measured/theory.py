"""What the papers on pyramids and on depth and width claim, what was found, and a verdict."""

from __future__ import annotations

import itertools
import math
import statistics
from typing import NamedTuple

from measured.claims import AGREES, IN_PART, Claim
from measured.reading import Record, experiment, figure, short, whole, whole_record


def pyramidal() -> list[Claim]:
    """Theorem 3.2, LeCun's start, Theorem 3.3 and Lemma 3.4."""
    cases = figure("pyramidal_convergence")
    kept = sum(r["paper"]["never_exceeded"] and r["paper"]["broken_invariant"] is None for r in cases)
    fastest, slowest = (pick(r["paper"]["steps_to_1e-4"] for r in cases) for pick in (min, max))
    widths = "; ".join(f"{r['case']}: n₁ = {r['widths'][0]}" for r in cases if r["certified"])
    return [
        Claim(
            "Theorem 3.2: from a start with (4) and (5), gradient descent with the certified step stays below "
            "(1 − ηα₀)^k Φ(θ₀)",
            f"never exceeded, and no invariant breaks, in {kept} of {len(cases)} cases; a factor of 1e4 is certified "
            "in "
            f"{short(fastest)} to {short(slowest)} steps",
            AGREES,
            experiment("pyramidal_convergence"),
            ("pyramidal_convergence",),
        ),
        Claim(
            "Section 3.1: one layer of width N is enough for a start with (4) and (5)",
            f"starts found and certified with {widths}",
            AGREES,
            experiment("pyramidal_convergence"),
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
    expected = ", ".join(f"{float(r['log10_width']):.0f}" for r in two)
    sharper = {r["samples"]: r["sharper"] for r in cells if r["sharper"] is not None}
    return Claim(
        "Section 3.2: with LeCun's start a first layer of width Ω(N² 2^{O(L)}/λ*²) is enough",
        f"(4) and (5) are expected from n₁ = 10^({expected}) on for N = {', '.join(str(r['samples']) for r in two)}, "
        f"L = 2; they hold in {held} of the draws up to n₁ = {whole(largest)}, where the margins grow as they should. "
        f"The sharper constants hold for {'; '.join(f'N = {n} from {w}' for n, w in sharper.items()) or 'none'}; a "
        f"mirrored pair needs {', '.join(str(r['pair']) for r in two)} units",
        IN_PART,
        experiment("pyramidal_lecun"),
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
    met = {}
    for power in (2, 3):
        over = [r for r in cells if r.get("power") == power]
        failed = min(r["samples"] for r in over if r["over_lemma"] < 1)
        met[power] = (
            max(r["samples"] for r in over if r["samples"] < failed),
            min(r["samples"] for r in over if r["value"] == 0),
        )
    said = "; ".join(
        f"r = {r}: up to N = {kept}, and σ_min is 0 from N = {zero}" for r, (kept, zero) in met.items()
    )
    return [
        Claim(
            "Theorem 3.3: λ* stays away from 0 as N grows with N ≤ d^k",
            f"λ* at N = d² for d = {', '.join(map(str, least))}: {', '.join(map(short, least.values()))}",
            AGREES,
            experiment("pyramidal_lambda_star"),
            ("pyramidal_lambda_star",),
        ),
        Claim(
            "Lemma 3.4: σ_min(X^{*r}) ≥ d^{r/2}/2 for N ≤ d^r, with high probability",
            f"d = 10, every draw: {said}. X^{{*r}} has C(d + r − 1, r) < d^r different columns; its probability says "
            "nothing where N is near d^r",
            IN_PART,
            experiment("pyramidal_lambda_star"),
            ("pyramidal_lambda_star",),
        ),
    ]


DATASETS = {"synthetic": "synthetic", "mnist": "MNIST", "cifar10": "CIFAR-10", "svhn": "SVHN (subset)"}


class Rises(NamedTuple):
    """How often J rises, how often by more than two standard errors, and in how many comparisons."""

    seen: int
    clear: int
    compared: int

    def __str__(self) -> str:
        """Return it in words."""
        return f"rises in {self.seen} of {self.compared} ({self.clear} beyond two standard errors)"


def rises(cells: list[Record], when: str, along: str) -> Rises:
    """Count where J rises from one depth or width to the next."""
    across = "width" if along == "depth" else "depth"
    found = []
    for fixed in {r[across] for r in cells}:
        row = [r for r in cells if r[across] == fixed]
        for low, high in itertools.pairwise(sorted({r[along] for r in row})):
            samples = [[share(r, when) for r in row if r[along] == at] for at in (low, high)]
            found.append(rise(*samples))
    return counted(found)


def training(cells: list[Record]) -> Rises:
    """Count where J rises in training."""
    points = sorted({(r["depth"], r["width"]) for r in cells})
    found = []
    for depth, width in points:
        of = [r for r in cells if (r["depth"], r["width"]) == (depth, width)]
        found.append(rise([0.0] * len(of), [share(r, "trained") - share(r, "initial") for r in of]))
    return counted(found)


def share(record: Record, when: str) -> float:
    """Return J over ½‖Y‖²."""
    return record[when]["value"] / record[when]["baseline"]


def rise(before: list[float], after: list[float]) -> tuple[float, float]:
    """Return a rise of the mean over seeds, and its standard error."""
    errors = (statistics.stdev(values) / math.sqrt(len(values)) for values in (before, after))
    return statistics.mean(after) - statistics.mean(before), math.hypot(*errors)


def counted(found: list[tuple[float, float]]) -> Rises:
    """Count the rises."""
    return Rises(sum(up > 1e-9 for up, _ in found), sum(up > max(1e-9, 2 * e) for up, e in found), len(found))


def figure1() -> list[Claim]:
    """Figure 1, by width, depth and training."""
    grids = {name: figure(f"depth_width_fig1_{name}") for name in DATASETS}
    names = tuple(f"depth_width_fig1_{name}" for name in DATASETS)
    command = experiment("depth_width_fig1", "--dataset … [--samples 5000 --widths 4 8 12 --raw-dir DIR]")
    starts = whole_record("depth_width_starts")
    relu = {d: mean_start(starts["cells"], "relu", 4, d) for d in (1, 5)}
    folded = {d: mean_start(starts["cells"], "|z|", 12, d) for d in (1, 5)}

    def said(when: str, along: str) -> str:
        return "; ".join(f"{DATASETS[name]} {rises(cells, when, along)}" for name, cells in grids.items())

    return [
        Claim(
            "Figure 1: J decreases with width",
            f"At the start: {said('initial', 'width')}. After training: {said('trained', 'width')}",
            IN_PART
            if any(
                rises(cells, when, "width").clear
                for cells in grids.values()
                for when in ("initial", "trained")
            )
            else AGREES,
            command,
            names,
        ),
        Claim(
            "Figure 1: J decreases with depth",
            f"After training: {said('trained', 'depth')}. At the start: {said('initial', 'depth')}. Narrow ReLU nets "
            "lose "
            f"by depth at the start: at width 4 J is {relu[1]:.2f} of ½‖Y‖² at depth 1 and {relu[5]:.2f} at depth 5 "
            "(ten "
            f"seeds). The synthetic target is {1 - starts['settings']['linear']:.0%} linear, which the first layer's "
            "columns of D nearly reach and the gates above cut; with |z|, which cuts nothing, width 12, it is "
            f"{folded[1]:.2f} and {folded[5]:.2f}. The scale of the weights cannot be the reason: J does not change "
            "with it",
            IN_PART,
            command,
            (*names, "depth_width_starts"),
        ),
        Claim(
            "Figure 1: J decreases with training (synthetic: yes; images: no)",
            "; ".join(f"{DATASETS[name]} {training(cells)}" for name, cells in grids.items()),
            IN_PART,
            command,
            names,
        ),
    ]


def mean_start(cells: list[Record], activation: str, width: int, depth: int) -> float:
    """Return the mean of J over ½‖Y‖² at the start."""
    wanted = {"activation": activation, "width": width, "depth": depth}
    return statistics.mean(r["value"] for r in cells if wanted.items() <= r.items())


def depth_width() -> list[Claim]:
    """Theorems 1 and 2, Proposition 2."""
    cells = figure("depth_width_theorem2")
    separated, plain, noise = (
        [r for r in cells if r["net"] == net] for net in ("separated linear units", "plain", "white noise")
    )
    nets = separated + plain
    still = [r for r in nets if r["stationary"]]
    inside = [r for r in separated if r["in_theorem"]]
    kept = [r for r in inside if r["stationary"]]
    moving = [r for r in inside if not r["stationary"]]
    bounded = sum(float(r["gap"]) <= float(r["gap_bound"]) * (1 + 1e-6) + 1e-12 for r in nets)
    widest = max(r["width"] for r in nets)
    of_widest = [r for r in nets if r["width"] == widest]
    command, records = experiment("depth_width_theorem2"), ("depth_width_theorem2",)
    return [
        Claim(
            "Theorem 1, Proposition 1: L = J at every differentiable local minimum",
            f"L − J ≤ ½(‖∇L‖/σ_r)² in {bounded} of {len(nets)} nets; {len(still)} end at a differentiable stationary "
            f"point, L − J there is {short(max(r['gap'] / r['baseline'] for r in still), 1)} of ½‖Y‖² at most. "
            "Training "
            f"often ends elsewhere, between pieces: at width {widest} only {sum(r['stationary'] for r in of_widest)} "
            "of "
            f"{len(of_widest)} nets end at such a point",
            AGREES,
            command,
            records,
        ),
        Claim(
            "Theorem 2, Corollary 1: with separated linear units a local minimum is at most basis-function regression",
            f"{sum(r['within'] for r in kept)} of {len(kept)} differentiable stationary points with such units are "
            "within "
            f"the bound; of {len(moving)} ends of training that are not stationary "
            f"{sum(r['within'] for r in moving)} are",
            AGREES,
            command,
            records,
        ),
        Claim(
            "Proposition 2: on white noise the loss is about 1 − dm/n of ½‖Y‖²",
            f"the mean agrees within three standard errors at {sum(r['holds'] for r in noise)} of {len(noise)} widths; "
            f"the bound is exceeded in {max(r['exceeded'] for r in noise):.0%} of the trials at most. The sizes that "
            "the "
            f"proof asks for are met at {sum(r['size_condition'] for r in noise)} of them",
            AGREES,
            command,
            records,
        ),
    ]
