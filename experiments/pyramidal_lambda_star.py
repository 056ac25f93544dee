"""λ_* stays away from 0 as N grows (Theorem 3.3), and where Lemma 3.4 holds and where it cannot.

Command:  python -m experiments.pyramidal_lambda_star [--seeds S] [--quick] [--out DIR]
Cost:     11 s on two shared cores; ``--quick`` a few seconds.
Expected: for data uniform on the sphere of radius √d, λ_* falls with N at fixed d, and at N = d² it does not fall as d
          grows: that is what Theorem 3.3 with k = 2 says. σ_min(X^{*r}) exceeds d^{r/2}/2 for small N, not up to the
          N = d^r of Lemma 3.4, whose probability then says nothing, and is 0 beyond N = C(d + r − 1, r).
Measured: smallest λ_* of three draws at N = d² for d = 10, 20, 30: 0.0007, 0.0014, 0.0017 for activation (2) with
          γ = 0.5, β = 1; 0.0015, 0.0030, 0.0036 with γ = 0.1; 0.0040, 0.0072, 0.0084 for the ReLU. For d = 10 the
          bound of Lemma 3.4 is met up to N = 6 (r = 2) and N = 25 (r = 3); σ_min is 0 from N = 56 and N = 221.
Writes:   runs/pyramidal_lambda_star/summary.json (one record a point) and figure.png; docs/figures/ has a copy.

Reference: "Global Convergence of Deep Networks with One Wide Layer Followed by Pyramidal Topology", section 3.3.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

import narrow_jax as nj

from ._run import Figure, Record, canvas, cells, experiment
from .pyramidal_convergence import on_sphere

SIGMAS = (
    nj.activations.smooth_leaky_relu(gamma=0.5, beta=1.0),
    nj.activations.smooth_leaky_relu(gamma=0.1, beta=1.0),
    nj.activations.get("relu"),
)
INPUTS, POWERS = (10, 20, 30), (2, 3)
STAR, POWER = "lambda_star", "khatri_rao"


def sphere(samples: int, inputs: int, seed: int) -> np.ndarray:
    """Return rows uniform on the sphere of radius √d."""
    return on_sphere(np.random.default_rng(seed).normal(size=(samples, inputs)))


def counts(largest: int, points: int) -> list[int]:
    """Return numbers of samples, evenly spaced in the logarithm."""
    return sorted({round(n) for n in np.geomspace(2, largest, points)})


def stars(points: int, seeds: int, inputs: int) -> list[Record]:
    """Return λ_* over N ≤ d²."""
    found = []
    for samples in counts(inputs**2, points):
        for seed in range(seeds):
            x = sphere(samples, inputs, seed)
            for sigma in SIGMAS:
                star = nj.certificates.lambda_star(x, sigma)
                record = {"kind": STAR, "inputs": inputs, "samples": samples, "seed": seed}
                record |= {"activation": sigma.name, "value": star.value, "error": star.error}
                found.append(record)
    return found


def powers(points: int, seeds: int, power: int) -> list[Record]:
    """Return σ_min(X^{*r}) over N up to beyond the monomials."""
    inputs, found = INPUTS[0], []
    monomials = math.comb(inputs + power - 1, power)
    for samples in sorted({*counts(2 * monomials, points), monomials, monomials + 1}):
        for seed in range(seeds):
            value = nj.certificates.khatri_rao_sigma_min(sphere(samples, inputs, seed), power)
            record = {"kind": POWER, "inputs": inputs, "power": power, "samples": samples, "seed": seed}
            found.append(record | {"value": value, "over_lemma": value / (inputs ** (power / 2) / 2)})
    return found


def curves(quick: bool, seeds: int) -> Mapping[str, Callable[[], list[Record]]]:
    """Return by name what gives the records of a curve."""
    inputs, of_stars = (INPUTS[:1], 5) if quick else (INPUTS, 14)
    orders, of_powers = (POWERS[:1], 5) if quick else (POWERS, 18)
    return {f"λ_*, d = {d}": partial(stars, of_stars, seeds, d) for d in inputs} | {
        f"σ_min, r = {r}": partial(powers, of_powers, seeds, r) for r in orders
    }


def curve(found: list[Record], field: str, **wanted: Any) -> tuple[list[int], list[float]]:
    """Return N, and the smallest value of a field over the seeds."""
    kept = [r for r in found if all(r.get(name) == value for name, value in wanted.items())]
    samples = sorted({r["samples"] for r in kept})
    return samples, [min(r[field] for r in kept if r["samples"] == n) for n in samples]


def figure(content: Record) -> Figure:
    """Draw λ_* over N on the left, σ_min over the lemma's bound on the right."""
    found = content["cells"]
    fig = canvas(11, 4.2, dpi=110)
    left, right = fig.subplots(1, 2)
    for color, sigma in enumerate(SIGMAS):
        for style, inputs in zip(("-", "--", ":"), INPUTS, strict=True):
            samples, values = curve(found, "value", activation=sigma.name, inputs=inputs)
            if samples:
                label = sigma.name.replace("smooth_leaky_relu", "smooth leaky") if style == "-" else None
                left.loglog(samples, values, style, color=f"C{color}", label=label)
    for style, inputs in zip(("-", "--", ":"), INPUTS, strict=True):
        left.plot([], [], style, color="0.3", label=f"d = {inputs}")
    left.set(
        xlabel="N", ylabel=rf"$\lambda_*$, smallest of {content['settings']['seeds']} draws", ylim=(1e-5, 1)
    )
    left.set_title(r"$\lambda_*$ for N ≤ d² (Theorem 3.3)")
    left.legend(ncols=2, loc="lower center")
    for color, power in enumerate(POWERS):
        samples, values = curve(found, "over_lemma", kind=POWER, power=power)
        if samples:
            monomials = math.comb(INPUTS[0] + power - 1, power)
            right.semilogx(samples, values, "o-", color=f"C{color}", label=f"r = {power}, d = {INPUTS[0]}")
            right.axvline(monomials, color=f"C{color}", linestyle=":")
            right.annotate("0 beyond", (monomials, 0.05 + 0.4 * color), color=f"C{color}")
    right.axhline(1, color="black", linewidth=1)
    right.set(
        xlabel="N", ylabel=r"$\sigma_{\min}(X^{*r})\ /\ (d^{r/2}/2)$", title="Lemma 3.4 claims 1 and more"
    )
    right.legend()
    return fig


def verdict(found: list[Record]) -> str:
    """Say in words what the records show."""
    lines = []
    for inputs in sorted({r["inputs"] for r in found if r["kind"] == STAR}):
        for sigma in SIGMAS:
            samples, values = curve(found, "value", activation=sigma.name, inputs=inputs)
            lines.append(f"{sigma.name}, d = {inputs}: λ_* ≥ {min(values):.2g} for N up to {samples[-1]}")
    for power in sorted({r["power"] for r in found if r["kind"] == POWER}):
        samples, values = curve(found, "over_lemma", kind=POWER, power=power)
        kept = max((n for n, v in zip(samples, values, strict=True) if v >= 1), default=0)
        zero = min(n for n, v in zip(samples, values, strict=True) if v == 0)
        lines.append(
            f"r = {power}, d = {INPUTS[0]}: Lemma 3.4's bound is met up to N = {kept}; σ_min is 0 from N = {zero}"
        )
    return "\n".join(lines)


def told(last: Record) -> str:
    """Say what a curve gave."""
    return f"{last['curve']}: {last['value']:.3g} at N = {last['samples']}"


@experiment(__doc__, "runs/pyramidal_lambda_star", figure, sizes={"seeds": 3}, quick={"seeds": 2})
def main(args: argparse.Namespace) -> list[str]:
    """Compute the curves that are missing."""
    wanted = curves(args.quick, args.seeds)

    def cell(curve: str) -> list[Record]:
        return [{"curve": curve} | record for record in wanted[curve]()]

    return [verdict(cells(args, {"curve": wanted}, cell, told))]


if __name__ == "__main__":
    main()
