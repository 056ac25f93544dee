"""Every optimizer of optax in training: run, or refused by name with the way out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

import narrow_jax as nj
from narrow_jax.constraints import project, regime, transformation
from narrow_jax.training import preparing
from narrow_jax.training.model import Start

RATE, RADIUS = 0.05, 0.5
RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 5)).astype(np.float32)
Y = np.sign(X[:, :1])
SGD = optax.sgd(RATE)
BY_RATE = (
    "adabelief adadelta adafactor adagrad adam adamax adamaxw adamw adan amsgrad fromage lamb lars lion nadam nadamw "
    "novograd optimistic_gradient_descent polyak_sgd radam rmsprop rprop sgd sign_sgd sm3 yogi"
)
BY_RATE_CONTRIB = (
    "acprop ademamix adopt cocob dadapt_adamw dowg madgrad momo momo_adam muon prodigy schedule_free_adamw "
    "schedule_free_sgd simplified_ademamix"
)
ALL = {name: lambda name=name: getattr(optax, name)(RATE) for name in BY_RATE.split()}
ALL |= {name: lambda name=name: getattr(contrib, name)(RATE) for name in BY_RATE_CONTRIB.split()}
# those with arguments of their own, or which need some of an update
SPECIAL = {
    "sam": lambda: contrib.sam(SGD, SGD),
    "opaque sam": lambda: contrib.sam(SGD, SGD, opaque_mode=True),
    "sam in a chain": lambda: optax.chain(optax.clip(1.0), contrib.sam(SGD, SGD, opaque_mode=True)),
    "sophia": lambda: contrib.sophia(RATE),
    "plateau": lambda: optax.chain(SGD, contrib.reduce_on_plateau()),
    "backtracking": lambda: optax.chain(SGD, optax.scale_by_backtracking_linesearch(5)),
    "flat": lambda: optax.flatten(SGD),
    "MultiSteps": lambda: optax.MultiSteps(SGD, 2),
}
ALL |= SPECIAL | {
    "lbfgs": optax.lbfgs,
    "mechanize": lambda: contrib.mechanize(SGD),
    "schedule_free": lambda: contrib.schedule_free(SGD, RATE),
}
WHERE = {"outside": lambda tx: tx, "regime": lambda tx: regime(tx, RADIUS)}


@pytest.fixture(autouse=True)
def standard():
    """Optax's own code promotes."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def start():
    return nj.initializers.mirrored_lecun(jax.random.key(0), inputs=5, width=8)


def fit(start, tx, **options):
    return nj.fit(nj.models.pairwise_apply, start, tx, (X, Y), **({"steps": 8, "every": 4} | options))


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("name", ALL)
def test_an_update_runs_and_keeps_every_shape(start, name, where):
    tx = WHERE[where](transformation(ALL[name]()))
    assert preparing.optimizer(tx, Start(start)).extra


@pytest.mark.parametrize("name", SPECIAL)
def test_those_with_wishes_of_their_own_learn_inside_the_ball(start, name):
    result = fit(start, WHERE["regime"](transformation(SPECIAL[name]())))
    assert result.history["loss"][-1] < result.history["loss"][0]
    assert result.history["relative_distance"][-1] <= 1 + 1e-4


def test_sharpness_is_that_of_the_original_problem(start):
    """SAM with a ball of radius 1, in which the coordinates are the weights, against SAM itself."""

    def tx():
        return contrib.sam(SGD, SGD, opaque_mode=True)

    free = fit(start, tx(), steps=4)
    inside = fit(start, nj.constraints.ball_coordinates(tx(), 1.0), steps=4)
    for name in ("w", "v"):
        np.testing.assert_allclose(inside.params[name], free.params[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("where", WHERE)
def test_lookahead_is_refused_by_name(start, where):
    tx = WHERE[where](optax.lookahead(SGD, 5, 0.5))
    with pytest.raises(
        TypeError, match=r"tx holds optax.lookahead, .*schedule_free, evaluated by nj.constraints.eval"
    ):
        fit(start, tx)


@pytest.mark.parametrize(
    ("tx", "message"),
    [
        (
            contrib.differentially_private_aggregate(1.0, 0.1, 0),
            "cannot be run by training: .*batch dimension",
        ),
        (
            optax.GradientTransformation(lambda p: jnp.zeros(3), lambda u, s, p: (u, jnp.zeros(4))),
            r"tx.update changes what tx.init made: at '1' \(float32\[3\] expected, float32\[4\] found\)",
        ),
    ],
)
def test_what_training_cannot_run_is_said(start, tx, message):
    with pytest.raises(TypeError, match=message):
        fit(start, tx)


RELATIVE = {
    "adafactor": (
        lambda: optax.adafactor(RATE),
        lambda: optax.adafactor(RATE, multiply_by_parameter_scale=False),
    ),
    "lamb": (lambda: optax.lamb(0.01), lambda: optax.chain(optax.lamb(0.01), project(RADIUS, 1e-3))),
}


@pytest.mark.parametrize("name", RELATIVE)
def test_relative_steps_crawl_from_the_centre_and_the_way_out_does_not(start, name):
    crawling, way_out = (make() for make in RELATIVE[name])
    way_out = way_out if name == "lamb" else regime(way_out, RADIUS)
    slow, fast = (fit(start, tx).history["distance"][-1] for tx in (regime(crawling, RADIUS), way_out))
    assert slow < 0.2 * fast
