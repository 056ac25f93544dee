"""Many deep nets at once in NumPy: their dense Jacobians, and searches for the steepest change of one in a ball.

A net is (halves, v) with leading batch axes: halves of W_1 … W_H each, one or (plus, minus).
"""

import itertools
from typing import NamedTuple

import numpy as np

SIGMAS = {
    "tanh": (np.tanh, lambda z: 1 / np.cosh(z) ** 2),
    "softplus": (lambda z: np.logaddexp(0, z), lambda z: 0.5 + np.tanh(z / 2) / 2),
    "sin": (np.sin, np.cos),
}


class Kind(NamedTuple):
    """What a batch of nets has in common."""

    widths: tuple[int, ...]
    outputs: int
    activation: str
    paired: bool
    outer: bool


def jacobian(net, x, activation, outer):
    """Rows (sample, output); columns W_1 … W_H of each half in C order, then V."""
    halves, v = net
    sigma, slope = SIGMAS[activation]
    blocks, last = [], 0.0
    for half, sign in zip(halves, (1.0, -1.0), strict=False):
        a, slopes = [x], []
        for w in half:
            slopes.append(slope(a[-1] @ w))
            a.append(sigma(a[-1] @ w))
        d = sign * np.swapaxes(v, -1, -2)[..., None, :, :] * slopes[-1][..., None, :]
        own = []
        for layer in reversed(range(len(half))):
            own.append(a[layer][..., None, :, None] * d[..., None, :])
            if layer:
                d = (d @ np.swapaxes(half[layer], -1, -2)[..., None, :, :]) * slopes[layer - 1][..., None, :]
        blocks += own[::-1]
        last = last + sign * a[-1]
    if outer:
        blocks.append(last[..., None, :, None] * np.eye(v.shape[-1])[:, None, :])
    rows = x.shape[-2] * v.shape[-1]
    return np.concatenate([block.reshape(*x.shape[:-2], rows, -1) for block in blocks], axis=-1)


def flat(net):
    """The net as vectors: hidden weights half by half, V last."""
    halves, v = net
    leaves = [*(w for half in halves for w in half), v]
    return np.concatenate([leaf.reshape(len(v), -1) for leaf in leaves], axis=1)


def unflat(vectors, like):
    """A net of the shapes of another."""
    halves, v = like
    shapes = [w.shape[1:] for half in halves for w in half] + [v.shape[1:]]
    ends = np.cumsum([np.prod(shape) for shape in shapes])[:-1]
    leaves = [
        part.reshape(-1, *shape) for part, shape in zip(np.split(vectors, ends, axis=1), shapes, strict=True)
    ]
    depth = len(halves[0])
    return [leaves[i * depth : (i + 1) * depth] for i in range(len(halves))], leaves[-1]


def length(vectors):
    """Euclidean norms, one column."""
    return np.linalg.norm(vectors, axis=1, keepdims=True)


def params(net, index):
    """One net of the batch as params."""
    halves, v = net
    named = [{f"w{layer}": w[index] for layer, w in enumerate(half, start=1)} for half in halves]
    if len(halves) == 2:
        return {"plus": named[0], "minus": named[1], "v": v[index]}
    return {**named[0], f"w{len(halves[0]) + 1}": v[index]}


def draw(rng, kind, count, samples, inputs):
    """Random nets and data of many scales; half of the pairs are mirrored."""
    dims = [inputs, *kind.widths]

    def half():
        scale = 10 ** rng.uniform(-1, 1, (count, 1, 1))
        return [scale * rng.normal(size=(count, a, b)) / np.sqrt(a) for a, b in itertools.pairwise(dims)]

    halves = [half()]
    if kind.paired:
        mirror = rng.random((count, 1, 1)) < 0.5
        halves.append([np.where(mirror, w, other) for w, other in zip(halves[0], half(), strict=True)])
    v = rng.normal(size=(count, kind.widths[-1], kind.outputs)) * 10 ** rng.uniform(-1, 1, (count, 1, 1))
    x = rng.normal(size=(count, samples, inputs)) * 10 ** rng.uniform(-1, 0.5, (count, 1, 1))
    return (halves, v), x


def steepest(rng, kind, net, x, radius, steps):
    """The largest ‖J(θ) − J(θ')‖₂/‖θ − θ'‖ that a random search finds in the ball of radius > 0 around each net."""
    center = flat(net)
    moving = np.ones(center.shape[1])
    if not kind.outer:
        moving[center.shape[1] - net[1][0].size :] = 0

    def inside(offset):
        return offset * np.minimum(1, radius * (1 - 1e-9) / np.maximum(length(offset), 1e-300))

    def ratio(one, two):
        first, second = (
            jacobian(unflat(center + offset, net), x, kind.activation, kind.outer) for offset in (one, two)
        )
        apart = length(center + one - (center + two))
        size = np.linalg.norm(first - second, 2, axis=(1, 2))[:, None]
        return np.where(apart > 1e-3 * radius, size / np.maximum(apart, 1e-300), 0.0)

    def direction():
        step = rng.normal(size=center.shape) * moving
        return step / length(step)

    one = inside(radius * rng.random(radius.shape) * direction())
    gap = radius * 10 ** rng.uniform(-2.5, 0, radius.shape) * direction()
    best, step = ratio(one, inside(one + gap)), np.ones_like(radius)
    for _ in range(steps):
        tried = inside(one + step * radius * direction())
        further = gap + step * length(gap) * direction()
        further = further * 10 ** rng.uniform(-0.5, 0.5, radius.shape)
        found = ratio(tried, inside(tried + further))
        better = found > best
        one, gap, best = (
            np.where(better, new, old) for new, old in ((tried, one), (further, gap), (found, best))
        )
        step = np.clip(step * np.where(better, 1.5, 0.92), 1e-3, 2.0)
    return best[:, 0]
