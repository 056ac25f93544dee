"""The residual net against NumPy, the start of its last stage, its constraints under training, its Jacobian."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optimizers import unstrict
from resnets import NET, SHAPE, compiled, images, random_like, start

import narrow_jax as nj
from narrow_jax.models import ResNet, ResNet18, Stateful, mirror

# float32 through seven layers of numbers of order 1, against float64
FLOAT32 = 2e-5


# the start


def test_init_draws_a_mirrored_last_stage_of_the_right_size_and_a_feasible_head():
    net = ResNet(channels=(40,), blocks=(1,), outputs=3)
    params = jax.jit(net.init)(jax.random.key(0, impl="rbg"), images(0))["params"]
    jax.tree.map(np.testing.assert_array_equal, mirror(params, net.labels), params)
    for name in ("conv1", "conv2"):
        kernel = np.asarray(params["stage1"]["block1"][name]["kernel"])
        # variance 2/(9·channels); 14,400 draws, half of them independent: the deviation's own is 0.8 %
        assert kernel.std() == pytest.approx(np.sqrt(2 / (9 * 40)), rel=0.03)
    assert not np.array_equal(*np.split(np.asarray(params["stem"]["kernel"]), 2, axis=-1))
    nj.constraints.project(radius=1.0, zeta=1e-3, labels=net.labels).init(params)


def test_logits_are_not_zero_once_the_features_of_the_last_stage_are_not_mirrored():
    (apply, train), variables = compiled(NET), start(NET, 0)
    x = images(0)
    stage = variables["params"]["stage2"]
    for path, leaf in jax.tree_util.tree_leaves_with_path(stage):
        other = np.array(leaf)
        other[..., 1] += 1  # a channel of the first half
        changed = jax.tree_util.tree_map_with_path(lambda p, a: other if p == path else a, stage)  # noqa: B023
        broken = {**variables, "params": variables["params"] | {"stage2": changed}}
        layer = path[1].key
        for logits in (apply(broken, x), train(broken, x)[0]):
            # behind the first convolution the mirrored second one restores the pairs
            assert (np.abs(logits).max() > 1e-4) == (layer not in ("conv1", "norm1")), layer
            assert (np.abs(logits).max() == 0) == (layer in ("conv1", "norm1")), layer


# the function


def conv(x, w, stride):
    pad = w.shape[0] // 2
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[:2], axis=(1, 2))
    return np.einsum("nyxcij,ijcm->nyxm", windows[:, ::stride, ::stride], w)


def norm(x, params, stats, train):
    mean, var = (x.mean((0, 1, 2)), x.var((0, 1, 2))) if train else (stats["mean"], stats["var"])
    return (x - mean) / np.sqrt(var + 1e-5) * params["scale"] + params["bias"]


def by_hand(variables, x, train):
    """Return the logits of NET in float64."""
    variables = jax.tree.map(lambda leaf: np.asarray(leaf, float), variables)
    params, stats = variables["params"], variables["batch_stats"]

    def normed(x, layer, name, stride, where=()):
        p, s = params, stats
        for part in where:
            p, s = p[part], s[part]
        return norm(conv(x, p[layer]["kernel"], stride), p[name], s[name], train)

    x = np.maximum(normed(np.asarray(x, float), "stem", "stem_norm", 1), 0)
    for where, stride in ((("stage1", "block1"), 1), (("stage2", "block1"), 2)):
        y = np.maximum(normed(x, "conv1", "norm1", stride, where), 0)
        y = normed(y, "conv2", "norm2", 1, where)
        x = np.maximum(y + (x if stride == 1 else normed(x, "shortcut", "shortcut_norm", 2, where)), 0)
    plus, minus = np.split(x.mean((1, 2)), 2, axis=1)
    return (plus - minus) @ params["head"]["v"]


@pytest.mark.parametrize("train", [False, True], ids=["evaluation", "training"])
def test_value_is_that_of_a_residual_net(train):
    apply, applied_in_training = compiled(NET)
    variables, x = random_like(start(NET, 0), 1), images(2)
    logits = applied_in_training(variables, x)[0] if train else apply(variables, x)
    expected = by_hand(variables, x, train)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(logits, expected, rtol=FLOAT32, atol=FLOAT32)


def parameters(net, *shape):
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros(shape))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))


def test_full_width_has_the_published_number_of_parameters():
    net = ResNet18(width=512, outputs=1000, head="dense", stem="imagenet")
    assert parameters(net, 1, 64, 64, 3) == 11_689_512


def test_full_net_halves_its_images_as_published():
    net = ResNet18(outputs=9, stem="imagenet")
    variables = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
    _, seen = jax.eval_shape(
        lambda v, x: net.apply(v, x, capture_intermediates=True, mutable=["intermediates"]),
        variables,
        jnp.zeros((1, 224, 224, 3)),
    )
    sizes = [seen["intermediates"][f"stage{i}"]["__call__"][0].shape for i in (1, 2, 3, 4)]
    assert sizes == [(1, 56, 56, 64), (1, 28, 28, 128), (1, 14, 14, 256), (1, 7, 7, 64)]


# the regime

RADIUS, ZETA, STEPS = 0.3, 1e-3, 100


@pytest.fixture(scope="module")
def trained():
    """100 steps of SGD with momentum and weight decay, on random labels, inside a ball that binds."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        state = start(NET, 0)
        params = state.pop("params")
        sgd = unstrict(optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(0.2, momentum=0.9)))
        tx = nj.constraints.regime(sgd, RADIUS, ZETA, labels=NET.labels)
        data = (images(3), np.array([0, 1, 2, 1, 0]))
        result = nj.fit(
            Stateful(NET), params, tx, data, steps=STEPS, every=STEPS, loss="cross_entropy", model_state=state
        )
        return params, state, result


def test_trained_net_is_inside_the_ball_and_the_cone_and_says_so(trained):
    before, _, result = trained
    moved = jax.tree.map(lambda a, b: np.asarray(a, float) - b, result.params["stage2"], before["stage2"])
    distance = np.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(moved)))
    assert 0.9 * RADIUS <= distance <= RADIUS * (1 + 1e-6)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(moved))  # norms move too
    v, v0 = (np.asarray(p["head"]["v"], float) for p in (result.params, before))
    assert (v * np.sign(v0)).min() >= ZETA * (1 - 1e-6)
    assert np.abs(v - v0).max() > 0.1
    told = jax.tree.map(float, nj.constraints.report(result.opt_state))
    assert told["distance"] == pytest.approx(distance, rel=1e-5)
    assert told["relative_distance"] == pytest.approx(distance / RADIUS, rel=1e-5)
    assert told["ball_active"]
    # outside of the ball: free, with a longer way
    assert np.abs(np.asarray(result.params["stem"]["kernel"]) - before["stem"]["kernel"]).max() > 0.01


def test_training_learns_and_moves_the_statistics(trained):
    _, state, result = trained
    assert result.history["loss"][0] == pytest.approx(np.log(3), rel=1e-6)
    assert result.history["accuracy"][-1] == 1
    before, after = state["batch_stats"], result.model_state["batch_stats"]
    assert all(
        np.abs(a - b).max() > 0 for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    )


def test_labels_of_the_dense_head_are_the_ball_only():
    net = NET.clone(head="dense", channels=(3, 5))
    params = jax.eval_shape(net.init, jax.random.key(0), images(0))["params"]
    labels = net.labels(params)
    assert set(jax.tree.leaves(labels["stage2"])) == {"w"}
    assert set(jax.tree.leaves({**labels, "stage2": None})) == {"free"}


def test_stateful_is_equal_for_equal_nets_and_changes_nothing_in_evaluation_mode():
    assert Stateful(NET) == Stateful(NET.clone())
    assert hash(Stateful(NET)) == hash(Stateful(NET.clone()))
    assert Stateful(NET) != Stateful(NET.clone(outputs=4))
    state = start(NET, 0)
    params = state.pop("params")
    _, same = jax.eval_shape(functools.partial(Stateful(NET), train=False), params, state, images(0))
    assert jax.tree.structure(same) == jax.tree.structure(state)


# the Jacobian


def test_sigma_min_of_the_last_stage_is_that_of_the_dense_jacobian():
    net, x = ResNet(channels=(4,), blocks=(1,), outputs=2), images(5)[:3, :4, :4]
    variables = random_like(jax.eval_shape(net.init, jax.random.key(0), x), 4)
    apply = jax.jit(net.apply)
    J = nj.jacobian.autodiff(apply, variables, x, wrt="params/" + net.last_stage)
    found = nj.sigma_min(J)
    with jax.enable_x64(True):
        wide, x = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), (variables, x))

        def logits(stage):
            return apply({**wide, "params": wide["params"] | {"stage1": stage}}, x).reshape(-1)

        rows = jax.jit(jax.jacrev(logits))(wide["params"]["stage1"])
        dense = np.concatenate([np.asarray(leaf).reshape(6, -1) for leaf in jax.tree.leaves(rows)], axis=1)
    assert J.shape == dense.shape
    singular = np.linalg.svd(dense, compute_uv=False)
    assert singular[-1] > 1e-6 * singular[0]
    assert found.lower <= singular[-1] * (1 + 1e-9)
    assert found.value == pytest.approx(singular[-1], rel=1e-8)
    assert found.sigma_max == pytest.approx(singular[0], rel=1e-8)


def test_jacobian_in_training_mode_is_refused():
    _, train = compiled(NET)
    with pytest.raises(ValueError, match=r"couples samples.*Batch normalisation in training mode"):
        nj.jacobian.autodiff(
            lambda v, x: train(v, x)[0], random_like(start(NET, 0), 4), images(0), wrt="params/stage2"
        )


# bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": (3, 5)}, "width is 5; expected an even number.*use 4 or 6"),
        ({"channels": (3, 1)}, "width is 1; expected an integer ≥ 2"),
        ({"channels": (0, 4)}, "channels of stage 1 is 0; expected an integer ≥ 1"),
        ({"blocks": (1, 0)}, "blocks of stage 2 is 0; expected an integer ≥ 1"),
        ({"blocks": (1, 1, 1)}, "2 stages of channels and 3 of blocks"),
        ({"head": "pairwize"}, "unknown head 'pairwize': did you mean 'pairwise'"),
        ({"stem": "tiny"}, "unknown stem 'tiny'"),
        ({"norm": "layer"}, "unknown norm 'layer'.*batch, group"),
    ],
)
def test_bad_fields_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        NET.clone(**change).init(jax.random.key(0), images(0))


def test_odd_width_is_fine_with_the_dense_head():
    assert parameters(ResNet(channels=(3, 1), blocks=(1, 1), head="dense"), *SHAPE) > 0


def test_images_of_another_shape_or_dtype_are_refused():
    with pytest.raises(
        ValueError, match=r"x has shape \(5, 72\); expected images \(n, height, width, colours\)"
    ):
        NET.init(jax.random.key(0), images(0).reshape(5, -1))
    with pytest.raises(TypeError, match="x has dtype uint8; expected floating images"):
        NET.init(jax.random.key(0), images(0).astype(np.uint8))
