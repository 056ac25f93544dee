"""Residual nets whose last stage is narrow, mirrored and read by a pairwise head."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from narrow_jax import _checks, constraints
from narrow_jax._typing import Array, Float, HostArray
from narrow_jax.models.mirroring import PairwiseHead, is_mirrored, mirrored

HEADS = ("pairwise", "dense")
STEMS = ("small", "imagenet")
NORMS = ("batch", "group")
GROUPS = 32


class BasicBlock(nn.Module):
    """Two 3×3 convolutions with norms beside a shortcut, ReLU after the first and after the sum.

    Reference:
        "Deep Residual Learning for Image Recognition" (He, Zhang, Ren, Sun, 2016), section 3.
    """

    channels: int
    stride: int
    project: bool
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: Float[Array, "n y x c"]) -> Float[Array, "n _ _ m"]:
        """Return relu(branch(x) + shortcut(x))."""
        stride = (self.stride, self.stride)
        y = self.conv(self.channels, (3, 3), stride, padding=1, name="conv1")(x)
        y = nn.relu(self.norm(self.channels, name="norm1")(y))
        y = self.conv(self.channels, (3, 3), padding=1, name="conv2")(y)
        y = self.norm(self.channels, name="norm2")(y)
        if self.project:
            x = self.conv(self.channels, (1, 1), stride, name="shortcut")(x)
            x = self.norm(self.channels, name="shortcut_norm")(x)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """A residual net on images (n, height, width, colours), stage after stage of basic blocks.

    With the pairwise head the last stage is mirrored at initialisation, convolutions, shortcut and norms: its pooled
    features are pairwise equal and the logits exactly 0, whatever the input, in training and in evaluation mode. While
    it is mirrored that is so by ``is_mirrored``, not by how equal channels happen to be rounded. Norm
    scales start at 1, also the last of a branch: at 0 the branch's Jacobian would vanish.

    ``init`` gives {"params": …, "batch_stats": …}; ``labels`` are those of the regime.

    Fields:
        channels: of each stage; the last is the width.
        blocks: of each stage.
        outputs: k.
        head: "pairwise" (``PairwiseHead``; even width) or "dense" (the usual layer with biases; plain start).
        stem: "small" (3×3, for images of about 32×32) or "imagenet" (7×7 and pooling, both with stride 2).
        norm: "batch", or "group" (at most 32 groups, no ``batch_stats``).
        param_dtype: of the params.

    Raises:
        ValueError: on ``init`` or ``apply``, an unknown head, stem or norm, an odd width with the pairwise head, a
            size below 1, or x of another shape.
        TypeError: images that are not floating.

    Example:
        >>> import jax
        >>> net = ResNet(channels=(4, 6), blocks=(1, 1), outputs=3)
        >>> variables = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((5, 8, 8, 3)))
        >>> sorted(variables), sorted(variables["params"])
        (['batch_stats', 'params'], ['head', 'stage1', 'stage2', 'stem', 'stem_norm'])
    """

    channels: Sequence[int]
    blocks: Sequence[int]
    outputs: int = 10
    head: str = "pairwise"
    stem: str = "small"
    norm: str = "batch"
    param_dtype: DTypeLike = jnp.float32

    @property
    def last_stage(self) -> str:
        """Return the name of the narrow stage in params."""
        return f"stage{len(self.channels)}"

    @property
    def labels(self) -> Callable[[Any], Any]:
        """Return the label function of the regime: the last stage in one ball, a pairwise head in the cone."""
        return constraints.by_path(w=self.last_stage, v="head/v" if self.head == "pairwise" else ())

    @nn.compact
    def __call__(self, x: HostArray, train: bool = False) -> Float[Array, "n k"]:
        """Return the logits; with ``train`` batch norms use and update the statistics of this batch."""
        self._check(x)
        conv, norm = self._layers(train, mirror=False)
        x = self._enter(jnp.asarray(x), conv, norm)
        for stage, (channels, blocks) in enumerate(zip(self.channels, self.blocks, strict=True), start=1):
            narrow = stage == len(self.channels) and self.head == "pairwise"
            conv, norm = self._layers(train, mirror=narrow)
            project = stage > 1 or narrow  # an identity would carry the unmirrored input past a narrow stage
            x = _Stage(channels, blocks, 1 if stage == 1 else 2, project, conv, norm, name=f"stage{stage}")(x)
        features = jnp.mean(x, axis=(1, 2))
        if self.head == "pairwise":
            kinds = ("params",) if train else ("params", "batch_stats")
            read = [self.variables.get(kind, {}).get(self.last_stage, {}) for kind in kinds]
            return PairwiseHead(self.outputs, self.param_dtype, name="head")(features, is_mirrored(read))
        return nn.Dense(self.outputs, param_dtype=self.param_dtype, name="head")(features)

    def _check(self, x: HostArray) -> None:
        for what, value, options in (
            ("head", self.head, HEADS),
            ("stem", self.stem, STEMS),
            ("norm", self.norm, NORMS),
        ):
            _checks.choice(what, value, options)
        for name, sizes in (("channels", self.channels), ("blocks", self.blocks)):
            for stage, size in enumerate(sizes, start=1):
                _checks.count(f"{name} of stage {stage}", size)
        if len(self.channels) != len(self.blocks):
            raise ValueError(
                f"{len(self.channels)} stages of channels and {len(self.blocks)} of blocks; expected as many"
            )
        if self.head == "pairwise":
            _checks.even_width(self.channels[-1])
        _checks.array("x", x)
        if x.ndim != 4:
            raise ValueError(f"x has shape {x.shape}; expected images (n, height, width, colours)")
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(
                f"x has dtype {x.dtype}; expected floating images: scale pixels to numbers of order 1"
            )

    def _layers(self, train: bool, mirror: bool) -> tuple[Callable[..., nn.Module], Callable[..., nn.Module]]:
        """Return the constructors of convolutions and norms, mirrored or not."""
        draw = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
        conv = functools.partial(
            nn.Conv,
            use_bias=False,
            kernel_init=mirrored(draw) if mirror else draw,
            param_dtype=self.param_dtype,
        )
        if self.norm == "batch":
            batch = functools.partial(
                nn.BatchNorm,
                use_running_average=not train,
                momentum=0.9,
                epsilon=1e-5,
                param_dtype=self.param_dtype,
            )
            return conv, lambda channels, name: batch(name=name)
        # an even number of groups for an even width: none holds channels of both halves
        group = functools.partial(nn.GroupNorm, epsilon=1e-5, param_dtype=self.param_dtype)
        return conv, lambda channels, name: group(math.gcd(channels, GROUPS), name=name)

    def _enter(self, x: Array, conv: Callable[..., nn.Module], norm: Callable[..., nn.Module]) -> Array:
        first = self.channels[0]
        if self.stem == "small":
            return nn.relu(norm(first, name="stem_norm")(conv(first, (3, 3), padding=1, name="stem")(x)))
        x = nn.relu(norm(first, name="stem_norm")(conv(first, (7, 7), (2, 2), padding=3, name="stem")(x)))
        return nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))


class _Stage(nn.Module):
    """Basic blocks of one number of channels, the first with the stage's stride and, if wanted, a projection."""

    channels: int
    blocks: int
    stride: int
    project: bool
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for block in range(1, self.blocks + 1):
            stride, project = (self.stride, self.project) if block == 1 else (1, False)
            x = BasicBlock(self.channels, stride, project, self.conv, self.norm, name=f"block{block}")(x)
        return x


def ResNet18(width: int = 64, outputs: int = 10, **fields: Any) -> ResNet:  # noqa: N802
    """Return the ResNet-18 whose last stage has ``width`` channels instead of 512: stages 64, 128, 256, width.

    Args:
        width: channels of the last stage, even with the pairwise head.
        outputs: k.
        fields: head, stem, norm and param_dtype of ``ResNet``.

    Example:
        >>> import jax
        >>> net = ResNet18(width=64, outputs=9, stem="imagenet")
        >>> shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
        >>> sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
        3058144

    Reference:
        "When Expressivity Meets Trainability", section 5 and Figure 5; "Deep Residual Learning for Image Recognition".
    """
    return ResNet(channels=(64, 128, 256, width), blocks=(2, 2, 2, 2), outputs=outputs, **fields)
