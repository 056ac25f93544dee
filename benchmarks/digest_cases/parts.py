"""What everything else is made of: activations, draws, losses, nets, and data."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import narrow_jax as nj
from benchmarks.digest_cases.given import case, data, enter_all, net, numbers, start, working

POINTS = np.concatenate(
    [np.linspace(-6, 6, 49), [-40.0, 40.0, -700.0, 700.0, 1e-8, -1e-8, 1e-30, 0.0, -0.0, 3e4, -3e4]]
)
FAMILIES = {
    "leaky_relu(0.25)": nj.activations.leaky_relu(0.25),
    "leaky_relu(-0.5)": nj.activations.leaky_relu(-0.5),
    "smooth_leaky_relu(0.5, 1)": nj.activations.smooth_leaky_relu(0.5, 1.0),
    "smooth_leaky_relu(0.1, 7)": nj.activations.smooth_leaky_relu(0.1, 7.0),
    "per_unit": nj.activations.per_unit(["relu", "tanh", nj.activations.leaky_relu(0.25)]),
}
NAMED = {name: nj.activations.get(name) for name in nj.activations.names()}


def activation(sigma: nj.activations.Activation) -> Any:
    """Return all that an activation states and computes."""
    z = jnp.asarray(POINTS, working())
    z = z[:, None] * jnp.ones(max(len(sigma.units), 1), working())
    return {
        "stated": nj.activations.check(sigma),
        "value": sigma(z),
        "derivative": sigma.derivative(z),
        "for proofs": None if sigma.value is None else sigma.value(z),
        "compiled": jax.jit(lambda z: (sigma(z), sigma.derivative(z)))(z),
        "autodiff": jax.vjp(sigma.fn, z)[1](jnp.ones_like(z))[0],
        "repr": [sigma.name, nj.activations.get(sigma) is sigma],
    }


enter_all(
    "activations/",
    {name: partial(activation, sigma) for name, sigma in (NAMED | FAMILIES).items()},
    x64=True,
)


@case("activations/names")
def names() -> Any:
    """The names, and the check of an activation of one's own."""
    own = nj.activations.Activation(
        "cube", lambda z: z**3, lambda z: 3 * z**2, float("inf"), 0.0, float("inf"), zero_only_at_zero=True
    )
    return {"names": nj.activations.names(), "own": nj.activations.check(own)}


@case("initializers/draws", x64=True)
def draws() -> Any:
    """Draws of each initializer, and of each variant."""
    key, draw = jax.random.key(7), nj.initializers
    options: dict[str, Any] = {"inputs": 5, "dtype": working()}
    widths = (9, 4, 3)
    return {
        "lecun": draw.lecun(key, width=6, outputs=2, **options),
        "mirrored": draw.mirrored_lecun(key, width=6, **options),
        "mirrored, κ": draw.mirrored_lecun(key, width=6, outputs=3, zeta=0.1, kappa=2.0, **options),
        "half": draw.lecun(key, inputs=3, width=4, dtype=jnp.bfloat16),
        "pyramids": draw.PYRAMIDS,
        "identity": draw.pyramidal(key, widths=widths, scale=7.0, variance=0.5, **options),
        "gaussian": draw.pyramidal(key, widths=widths, variant="gaussian", scale=0.3, **options),
        "pyramidal lecun": draw.pyramidal(key, widths=widths, variant="lecun", **options),
        "compiled": jax.jit(lambda key: draw.mirrored_lecun(key, width=4, outputs=2, **options))(key),
    }


@case("losses/values", x64=True)
def losses() -> Any:
    """Losses, their slopes, and which accuracy has a meaning."""
    f, y = numbers(0, 6, 3), numbers(1, 6, 3)
    labels, signs = np.array([0, 1, 2, 2, 1, 0], np.int32), np.where(y[:, :1] > 0, 1, -1).astype(working())
    one_hot = np.eye(3, dtype=working())[labels]
    targets = {"labels": labels, "signs": signs, "one-hot": one_hot, "real": y}
    found: dict[str, Any] = {
        name: jax.value_and_grad(nj.losses.get(name))(jnp.asarray(f), target)
        for name, target in (("squared", y), ("mean_squared", y), ("cross_entropy", labels))
    }
    for name, target in targets.items():
        accuracy = nj.losses.accuracy_for(target)
        outputs = f[:, : target.shape[1]] if target.ndim == 2 else f
        found[f"accuracy of {name}"] = None if accuracy is None else accuracy(outputs, target)
    logistic = nj.losses.accuracy_for(signs, f[:, :1], lambda f, y: jnp.mean(jnp.exp(-f * y)))
    strange = nj.losses.accuracy_for(labels, f, lambda f, y: jnp.mean(f[:, 0]))
    return found | {"own losses": [logistic is None, strange is None]}


@case("models/outputs", x64=True)
def outputs() -> Any:
    """Outputs of the nets for short and long inputs, compiled and not."""
    m, x = nj.models, numbers(0, 5, 4)
    mlp = {"w1": numbers(1, 4, 6), "w2": numbers(2, 6, 3), "w3": numbers(3, 3, 2)}
    long = {"w": numbers(4, 300, 6), "v": numbers(5, 3, 2)}
    return {
        "pairwise": m.pairwise_apply(net(), x),
        "pairwise, start": m.pairwise_apply(start(inputs=4), x, "softplus"),
        "pairwise, long": m.pairwise_apply(long, numbers(6, 3, 300)),
        "standard": m.standard_apply(net(outputs=2, pairs=False), x, "relu"),
        "mlp": m.mlp_apply(mlp, x, ("tanh", nj.activations.leaky_relu(0.5))),
        "compiled": jax.jit(m.pairwise_apply)(net(), x),
        "slope": jax.grad(lambda p: jnp.sum(m.pairwise_apply(p, x) ** 2))(jax.tree.map(jnp.asarray, net())),
        "layers": [m.mlp_layers(mlp), [sigma.name for sigma in m.mlp_activations("relu", 3)]],
        "bfloat16": nj.precision.bfloat16(m.standard_apply)(net(pairs=False), x),
    }


@case("models/mirrored")
def mirrored() -> Any:
    """Mirroring, and the head that reads it."""
    m, kernel = nj.models, jnp.asarray(numbers(0, 2, 6))
    params = {"conv": {"kernel": kernel, "bias": kernel[0]}, "head": {"v": jnp.ones((3, 2))}}
    twin = m.mirror(params, nj.constraints.by_path(w="conv", v="head/v"))
    features = jnp.asarray(numbers(1, 4, 6))
    head = m.PairwiseHead(outputs=3)
    variables = head.init(jax.random.key(0), features)
    draw = m.mirrored(jax.nn.initializers.lecun_normal())
    return {
        "params": twin,
        "is": [m.is_mirrored(twin["conv"]), m.is_mirrored(params["conv"])],
        "channels": m.mirror_channels(kernel),
        "drawn": draw(jax.random.key(1), (3, 4)),
        "head": m.pairwise_head(jnp.ones((3, 2)), features),
        "mirrored head": m.pairwise_head(jnp.ones((3, 2)), features, mirrored=True),
        "module": [variables, head.apply(variables, features)],
    }


@case("models/flax")
def flax() -> Any:
    """Draws of the Flax modules, and a residual net in both modes."""
    m, x, images = nj.models, numbers(0, 5, 4), numbers(1, 2, 6, 6, 2)
    nets = (
        m.PairwiseNet(width=4, outputs=2),
        m.StandardNet(width=4),
        m.MLP(widths=(5, 3), activation="relu"),
    )
    residual = m.ResNet(channels=(2, 4), blocks=(1, 1), outputs=3)
    variables = jax.jit(residual.init)(jax.random.key(0), images)
    apply = m.Stateful(residual)
    params = variables["params"]
    state = {"batch_stats": variables["batch_stats"]}
    return {
        "small": {type(net).__name__: net.init(jax.random.key(0), x) for net in nets},
        "residual": variables,
        "evaluated": apply(params, state, images, train=False),
        "trained": jax.jit(apply, static_argnames="train")(params, state, images, train=True),
        "labels": residual.labels(params),
    }


SETS: dict[str, dict[str, Any]] = {
    "digits": {"samples": 30},
    "digits, random": {"labels": "random", "classes": 4, "samples": 25, "normalize": "whiten", "seed": 3},
    "digits, standardized": {"normalize": "standardize", "test_fraction": 0.1},
    "synthetic": {"samples": 20, "inputs": 4, "normalize": "scale", "seed": 2},
    "teacher": {"samples": 20, "test_fraction": 0.25},
}


def loaded(name: str) -> Any:
    """Load a data set that needs no network."""
    found = nj.data.load(name.partition(",")[0], **SETS[name])
    assert isinstance(found.normalizer, nj.data.Normalizer)
    return {"data": found, "normalizer": found.normalizer.to_arrays()}


enter_all("data/", {name: partial(loaded, name) for name in SETS})


@case("data/normalizers", x64=True)
def normalizers() -> Any:
    """Each normalizer, fitted to narrow, wide and constant columns, on the host and on the device."""
    x = np.random.default_rng(0).normal(size=(9, 4)) * [1e-3, 1.0, 1e5, 0.0] + [0, 5, 0, 2]
    new = numbers(1, 3, 4)
    found: dict[str, Any] = {"names": nj.data.NAMES}
    for fit in (nj.data.scale, nj.data.standardize, nj.data.whiten):
        fitted = fit(x)
        again = nj.data.Normalizer.from_arrays(fitted.to_arrays())
        applied = [fitted.apply(x), again.apply(new), fitted.apply(jnp.asarray(new))]
        found[fit.__name__] = {"map": fitted, "applied": applied}
    return found


@case("data/images", x64=True)
def images() -> Any:
    """Augmentation, shrinking, and the super-classes of Restricted ImageNet."""
    batch, key, augment = numbers(0, 5, 4, 4, 2), jax.random.key(1), nj.data.augment
    restricted = nj.data.restricted_imagenet
    return {
        "crop": augment.random_crop(key, batch, padding=2),
        "flip": augment.horizontal_flip(key, batch),
        "compiled": jax.jit(lambda key, x: augment.horizontal_flip(key, augment.random_crop(key, x)))(
            key, batch
        ),
        "shrunk": nj.data.shrink(nj.data.load("digits", samples=5, test_fraction=0.01), crop=6, size=4),
        "super-classes": restricted.superclass(np.arange(1000)),
        "names": [restricted.CLASSES, restricted.RANGES, restricted.MEAN, restricted.DEVIATION],
    }


@case("data/stream")
def stream() -> Any:
    """What a stream reads of a list of arrays, and of an array."""
    x, y = data(11)
    listed = nj.data.Stream(list(x), y, sample=4)
    batches = listed.batches(jax.random.key(0), batch_size=4)
    return {
        "read": [next(batches) for _ in range(4)],
        "sample": listed.sample(),
        "fingerprints": [listed.fingerprint(), nj.data.Stream(x, y).fingerprint()],
        "length": len(listed),
    }
