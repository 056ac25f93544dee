"""What rests on a rank: nets and data in other units, by powers of two, against ranks in integers.

A positively homogeneous net is the same function, bit for bit, after w_l[:, j]·a and w_{l+1}[j, :]/a. The columns of D
change by powers of two and its range does not: value, rank and verdict have to stay what they are.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

import narrow_jax as nj
from benchmarks.adversary import exact
from benchmarks.adversary.exact import mp
from benchmarks.adversary.outcome import Outcome, call, judged

Rng = np.random.Generator
Params = dict[str, np.ndarray]
NETS = ((3, (3, 2), 8), (3, (2, 2, 1), 20), (2, (3, 1), 30), (4, (5, 2), 4))
"""Inputs, widths and samples: few, since each compiles programs of its own."""

SLOPES = {"relu": Fraction(0), "abs": Fraction(-1), "leaky_relu(0.25)": Fraction(1, 4)}
LEAKY = nj.activations.leaky_relu(0.25)
LARGEST = 40
"""Units change by up to this power of two."""

CLOSE = 1e-9
"""Values are compared to this times ½‖Y‖²."""


def activation(name: str) -> Any:
    """Return what the library takes."""
    return LEAKY if name == LEAKY.name else name


# the net in fractions

Fractions = list[list[Fraction]]


def fractions(array: Any) -> Fractions:
    """Return the rows of an array, exactly."""
    return [[Fraction(float(entry)) for entry in row] for row in np.asarray(array)]


def product(a: Fractions, b: Fractions) -> Fractions:
    """Return AB."""
    columns = list(zip(*b, strict=True))
    return [
        [sum((p * q for p, q in zip(row, column, strict=True)), Fraction(0)) for column in columns]
        for row in a
    ]


def _entrywise(function: Callable[[Fraction, Fraction], Fraction], a: Fractions, b: Fractions) -> Fractions:
    return [[function(*pair) for pair in zip(*rows, strict=True)] for rows in zip(a, b, strict=True)]


def tangent(params: Params, x: np.ndarray, name: str) -> tuple[list[Fractions], Fractions, list[Fractions]]:
    """Return Φ^(0) … Φ^(H), the outputs, and the columns of D by layer, each over the rows (i, c)."""
    weights = [fractions(params[f"w{layer}"]) for layer in range(1, len(params) + 1)]
    features, slopes = [fractions(x)], []
    for w in weights[:-1]:
        z = product(features[-1], w)
        # 0 at a kink, as the library has it; no rounding moves these data across one
        slopes.append(
            [[SLOPES[name] if entry < 0 else Fraction(int(entry > 0)) for entry in row] for row in z]
        )
        features.append(_entrywise(Fraction.__mul__, slopes[-1], z))
    outputs = product(features[-1], weights[-1])
    columns = [
        [
            [
                g * sample[a]
                for sample, rows in zip(phi, sensitivity, strict=True)
                for g in (row[b] for row in rows)
            ]
            for b in range(len(w[0]))
            for a in range(len(w))
        ]
        for phi, sensitivity, w in zip(features, _sensitivities(weights, slopes), weights, strict=True)
    ]
    return features, outputs, columns


def _sensitivities(weights: list[Fractions], slopes: list[Fractions]) -> list[list[Fractions]]:
    """Return ∂ŷ_ic/∂z^(l)_ib by layer, sample, output and unit."""
    outputs = range(len(weights[-1][0]))
    found = [[[[Fraction(int(c == e)) for e in outputs] for c in outputs] for _ in slopes[0]]]
    for w, slope in zip(reversed(weights[1:]), reversed(slopes), strict=True):
        back = [list(row) for row in zip(*w, strict=True)]
        below = [
            [[s * entry for s, entry in zip(at, row, strict=True)] for row in product(rows, back)]
            for at, rows in zip(slope, found[0], strict=True)
        ]
        found.insert(0, below)
    return found


# problems


def draw(rng: Rng) -> tuple[Params, np.ndarray, np.ndarray, str]:
    """Return a net and data of few bits, so that float64 computes it without rounding."""
    inputs, widths, samples = NETS[rng.integers(len(NETS))]
    sizes = (inputs, *widths)
    params = {
        f"w{i}": np.round(rng.standard_normal(sizes[i - 1 : i + 1]) * 8) / 8 + 1 / 16
        for i in range(1, len(sizes))
    }
    x = np.round(rng.standard_normal((samples, inputs)) * 8) / 8
    if rng.random() < 0.3:  # equal units, a dead unit, an input that is always 0
        w = params["w1"]
        w[:, -1] = (w[:, 0], 0 * w[:, 0])[rng.integers(2)] if rng.random() < 0.6 else w[:, -1]
        x[:, 0] *= rng.random() < 0.5
    y = np.round(rng.standard_normal((samples, widths[-1])) * 8) / 8
    return params, x, y, list(SLOPES)[rng.integers(len(SLOPES))]


def rescaled(rng: Rng, params: Params, largest: int = LARGEST) -> Params:
    """Return the same function with hidden layers in other units: a power of two for each layer, or each unit."""
    weights = [params[f"w{layer}"].copy() for layer in range(1, len(params) + 1)]
    for layer in range(len(weights) - 1):
        units = weights[layer].shape[1]
        exponents = rng.integers(-largest, largest + 1, units if rng.random() < 0.5 else 1).astype(float)
        weights[layer] *= 2.0**exponents
        weights[layer + 1] *= 2.0 ** -exponents[:, None]
    return {f"w{layer}": w for layer, w in enumerate(weights, start=1)}


def stationary_value(rng: Rng) -> list[Outcome]:
    """Check ``stationary_value`` of one function in three parametrisations."""
    params, x, y, name = draw(rng)
    _, outputs, columns = tangent(params, x, name)
    flat = list(itertools.chain.from_iterable(columns))
    at_rest = rng.random() < 0.4
    y = stationary_targets(flat, outputs, y) if at_rest else y
    method = ("auto", "auto", "qr", "dense")[rng.integers(4)]
    reference = references(flat, outputs, y)
    nets = {"as drawn": params, "rescaled": rescaled(rng, params), "a little": rescaled(rng, params, 3)}
    return [check_value(net, x, y, name, method, reference, at_rest, case) for case, net in nets.items()]


def stationary_targets(columns: list[list[Fraction]], outputs: Fractions, noise: np.ndarray) -> np.ndarray:
    """Return targets whose error is orthogonal to D, to rounding."""
    rest, _ = exact.residual(columns, [Fraction(float(entry)) for entry in noise.ravel()])
    flat = [
        float(mp.mpf(f.numerator) / f.denominator + r)
        for f, r in zip(itertools.chain(*outputs), rest, strict=True)
    ]
    return np.array(flat).reshape(noise.shape)


def references(columns: list[list[Fraction]], outputs: Fractions, y: np.ndarray) -> dict[str, Any]:
    """Return loss, value, gap, baseline and rank of D."""
    target = [Fraction(float(entry)) for entry in y.ravel()]
    error = [a - b for a, b in zip(itertools.chain(*outputs), target, strict=True)]
    rest, rank = exact.residual(columns, target)
    loss, baseline = (sum((e * e for e in vector), Fraction(0)) / 2 for vector in (error, target))
    value = mp.fdot(rest, rest) / 2
    return {"loss": _number(loss), "value": value, "baseline": _number(baseline), "rank": rank}


def _number(fraction: Fraction) -> Any:
    return mp.mpf(fraction.numerator) / fraction.denominator


def check_value(
    params: Params,
    x: np.ndarray,
    y: np.ndarray,
    name: str,
    method: str,
    reference: dict[str, Any],
    at_rest: bool,
    case: str,
) -> Outcome:
    """Return whether loss, value, rank and verdict are right."""
    found = nj.certificates.stationary_value(params, x, y, activation(name), method=method)
    unit = CLOSE * (reference["baseline"] + reference["loss"])
    misses = []
    if abs(found.loss - reference["loss"]) > unit:
        misses.append(f"loss = {found.loss!r}, exactly {mp.nstr(reference['loss'], 17)}")
    if found.status == "resolved" and found.ranks is not None:
        if abs(found.value - reference["value"]) > unit:
            misses.append(f"resolved, value = {found.value!r}, exactly {mp.nstr(reference['value'], 17)}")
        if set(found.ranks.values()) != {reference["rank"]}:
            misses.append(f"resolved, ranks = {found.ranks}, exactly {reference['rank']}")
        if found.layers is not None and abs(sum(found.layers) + found.value - reference["baseline"]) > unit:
            misses.append("layers and value do not sum to the baseline")
    stationary = reference["loss"] - reference["value"] <= 1e-6 * reference["baseline"]
    if found.status == "resolved" and found.differentiable and found.holds != stationary:
        gap = mp.nstr(reference["loss"] - reference["value"], 9)
        misses.append(f"holds = {found.holds}, and the gap is {gap} of {mp.nstr(reference['baseline'], 9)}")
    if found.holds and not stationary:
        misses.append(f"holds ({found.status}) away from a stationary point")
    text = call("nj.certificates.stationary_value", params, x, y, activation(name), method=method)
    kind = "stationary" if at_rest else "not stationary"
    return judged(f"{case}, {kind}", misses, found.status == "resolved", text)


def basis_functions(rng: Rng) -> list[Outcome]:
    """Check ``basis_function_bound`` and ``regression_value`` of one function in two parametrisations."""
    params, x, y, name = draw(rng)
    if rng.random() < 0.5:
        x = np.abs(x) + 1 / 8
        params = {key: np.abs(w) for key, w in params.items()}
    depth = len(params) - 1
    first = int(rng.integers(0, depth + 1))
    layers = [layer for layer in range(first, depth + 1) if rng.random() < 0.6]
    features, outputs, columns = tangent(params, x, name)
    k = y.shape[1]
    each = [column for layer in layers for column in zip(*features[layer], strict=True)]
    blocks = [
        [entry * int(c == e) for entry in column for e in range(k)] for column in each for c in range(k)
    ]
    target = [Fraction(float(entry)) for entry in y.ravel()]
    hidden = list(itertools.chain.from_iterable(columns[:-1]))
    reference = {
        "bound": exact.unexplained(blocks + hidden, target)[0],
        "regression": exact.unexplained(blocks, target)[0],
        "baseline": _number(sum((e * e for e in target), Fraction(0)) / 2),
        "loss": _number(
            sum(((a - b) ** 2 for a, b in zip(itertools.chain(*outputs), target, strict=True)), Fraction(0))
            / 2
        ),
    }
    outcomes, sets = [], None
    for case, net in {"as drawn": params, "rescaled": rescaled(rng, params)}.items():
        outcome, sets = check_bound(net, x, y, name, layers, first, reference, case, sets)
        outcomes.append(outcome)
    return outcomes


def check_bound(
    params: Params,
    x: np.ndarray,
    y: np.ndarray,
    name: str,
    layers: list[int],
    first: int,
    reference: dict[str, Any],
    case: str,
    sets: Any,
) -> tuple[Outcome, Any]:
    """Return whether bound, regression and verdict are right, and the sets of linear units."""
    arguments = params, x, y
    found = nj.certificates.basis_function_bound(*arguments, layers, first, activation(name))
    value = nj.certificates.regression_value(*arguments, layers, activation(name))
    unit = CLOSE * (reference["baseline"] + reference["loss"])
    misses = [
        f"{what} = {got!r}, exactly {mp.nstr(reference[what], 17)}"
        for what, got in (
            *((name_, getattr(found, name_)) for name_ in ("loss", "bound", "regression")),
            ("regression", value),
        )
        if abs(got - reference[what]) > unit
    ]
    below = reference["loss"] <= reference["bound"] + 1e-9 * reference["baseline"]
    if found.holds != (found.units.holds and bool(below)):
        misses.append(f"holds = {found.holds}: {found.reason}")
    here = [units.tolist() for units in found.units.sets]
    if sets is not None and here != sets:
        misses.append(f"linear units {here}, and {sets} before the change of units")
    text = call("nj.certificates.basis_function_bound", *arguments, layers, first, activation(name))
    return judged(f"basis functions, {case}", misses, found.units.holds, text), here


# data


def data(rng: Rng) -> list[Outcome]:
    """Check rank, width and parallel samples of ``assumptions`` and ``admissible_width``, by integers."""
    n, d, k = ((8, 4, 1), (6, 9, 2), (2, 5, 1), (12, 3, 1))[rng.integers(4)]
    whole = rng.integers(-9, 10, (n, min(n, d, int(rng.integers(1, 10)))))
    x = (whole @ rng.integers(-9, 10, (whole.shape[1], d))).astype(float)
    if rng.random() < 0.4:
        i, j = rng.choice(n, 2, replace=False)
        x[i] = x[j] * rng.choice([-1.0, 1.0, 3.0, -0.5])
    cases = {
        "as drawn": x,
        "samples in other units": x * 2.0 ** rng.integers(-LARGEST, LARGEST + 1, (n, 1)),
        "inputs in other units": x * 2.0 ** rng.integers(-LARGEST, LARGEST + 1, d),
    }
    if not x.any():
        return []
    y = rng.standard_normal((n, k))
    reference = {"rank": exact.rank(x), "parallel": parallel(x)}
    return [check_data(data_, y, reference, case) for case, data_ in cases.items()]


def parallel(x: np.ndarray) -> bool:
    """Return whether two samples that are not 0 are multiples of each other."""
    lines = set()
    rows = [row for row in exact.integers(x) if any(row)]
    for row in rows:
        sign = 1 if next(entry for entry in row if entry) > 0 else -1
        lines.add(tuple(sign * entry for entry in row))
    return len(lines) < len(rows)


def check_data(x: np.ndarray, y: np.ndarray, reference: dict[str, Any], case: str) -> Outcome:
    """Return whether the audit says what the integers say."""
    (n, d), k, rank = x.shape, y.shape[1], reference["rank"]
    needed = 2 * max(math.ceil(n * k / rank), k)
    width = needed if needed % 4 else needed - 2 or 2
    audit = nj.certificates.assumptions(x, y, width)
    verdicts = {check.assumption: check.verdict == "holds" for check in audit.checks}
    expected = {
        "m ≥ 2nk/d": width * d >= 2 * n * k,
        "h·rank(x) ≥ nk and h ≥ k": width // 2 * rank >= n * k and width // 2 >= k,
        "no two samples are parallel": not reference["parallel"],
        "x spans R^d" if n >= d else "the samples, fewer than d, are linearly independent": rank == min(n, d),
        "no sample is 0": bool(x.any(axis=1).all()),
    }
    misses = [
        f"{name}: {verdicts[name]}, exactly {holds}"
        for name, holds in expected.items()
        if verdicts[name] != holds
    ]
    got = audit.rank, audit.width_needed, nj.jacobian.admissible_width(x, k)
    if got != (rank, needed, needed):
        misses.append(f"rank, width_needed, admissible_width = {got}, exactly {(rank, needed, needed)}")
    return judged(f"data, {case}", misses, audit.holds, call("nj.certificates.assumptions", x, y, width))
