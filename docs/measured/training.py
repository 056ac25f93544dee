"""Speed of training, and what it learns."""

from __future__ import annotations

from measured.commands import command
from measured.reading import (
    Row,
    accuracy,
    bench,
    figure,
    mean_and_deviation,
    percent,
    result,
    the,
    whole,
)


def training() -> list[Row]:
    """Speed of training, and what it learns."""
    demo, found = figure("demo"), result("training")
    regime, ball, free = demo
    batches = result("minibatch")
    flax, torch = (
        [r["result"].replace("×", " ×") for r in batches if r["what"].startswith(what)]
        for what in ("regime against", "against PyTorch")
    )
    resnet = result("resnet")[0]
    scores = {
        name: next(r for r in result("estimators") if r["classifier"].startswith(name))
        for name in ("NarrowClassifier", "MLPClassifier", "LogisticRegression")
    }
    said = (f"{100 * r['accuracy']:.1f} ± {100 * r['deviation']:.1f}" for r in scores.values())
    speed, small = ("n=1000, d=50, m=60", "n=200, d=20, m=40")
    projection, eager = ("projection in an SGD step", "steps per second against PyTorch eager")
    rows = [
        Row(
            "labels learned within ε = 0.1: pairwise regime / standard net with the same ball",
            f"{percent(regime['accuracy'], 0)} / {percent(ball['accuracy'], 0)}",
            "`make demo`",
        ),
        Row(
            "the same net without a ball",
            f"{percent(free['accuracy'], 0)}, {free['distance_over_radius']:.0f} ε away from its start",
            "`make demo`",
        ),
    ]
    rows += [
        Row(
            f"{text}, {size}",
            the(found, what=what, size=size)["result"].replace("×", " ×"),
            bench("training"),
        )
        for text, what in (
            ("projection in an optax SGD step", projection),
            ("steps per second against a PyTorch 2 eager loop", eager),
        )
        for size in (speed, small)
    ]
    sweep = {
        "a run of a sweep of 24, warm, against a single run": "a run of a sweep of 24, warm",
        "a sweep of 24 runs against 24 separately compiled runs": "24 runs with compilation",
    }
    rows += [
        Row(text, the(found, what=what)["result"].replace("×", " × the time"), bench("training"))
        for text, what in sweep.items()
    ]
    return [
        *rows,
        Row(
            "minibatches (digits / MNIST / CIFAR-10 in size), the regime against a plain Flax and optax loop: images "
            "per second",
            " / ".join(flax),
            bench("minibatch"),
        ),
        Row(
            "the same against PyTorch 2 eager with the same constraints",
            " / ".join(torch),
            bench("minibatch"),
        ),
        Row(
            "ResNet-18 with 64 channels in its last stage, under the regime: one epoch over "
            f"{whole(resnet['images'])} CIFAR-10 images",
            f"{percent(resnet['test_accuracy'], 0)} test accuracy after {resnet['seconds'] / 60:.1f} minutes, "
            f"{resnet['peak_gb']:.1f} GB for the whole process",
            bench("resnet", "--raw-dir DIR"),
        ),
        Row(
            "breast cancer, test accuracy of five folds, 20 hidden units: `NarrowClassifier` / `MLPClassifier` / "
            "`LogisticRegression`",
            " / ".join(said) + " %",
            bench("estimators"),
        ),
        *cifar10(),
        *residual_nets(),
        Row(
            "runs killed at random moments and resumed that end bit for bit as the uninterrupted one",
            f"{sum(r['identical'] for r in result('kill'))} of {len(result('kill'))}",
            bench("kill"),
        ),
    ]


def cifar10() -> list[Row]:
    """Test accuracy on CIFAR-10 over widths."""
    cells = figure("narrow_images_cifar10")
    what = "CIFAR-10, 10,000 training images, {} hidden units, test accuracy: regime with ε = 1 / plain SGD"
    return [
        Row(
            what.format(width),
            " / ".join(accuracy(the(cells, width=width, radius=radius)) for radius in (1.0, None)),
            command("narrow_images_cifar10"),
        )
        for width in (8, 32, 128)
    ]


def residual_nets() -> list[Row]:
    """Test accuracy of residual nets over the width of the last stage."""
    rows = []
    for name, what in (
        ("cifar10", "CIFAR-10, 25,000 training images, four epochs"),
        ("restricted_imagenet", "Restricted ImageNet, 920 training images of 64 × 64"),
    ):
        cells = figure(f"narrow_fig5_{name}")
        for width in (16, 32, 64, 128):
            said = [
                mean_and_deviation([c for c in cells if (c["width"], c["radius"]) == (width, radius)])
                for radius in (1.0, 10.0, None)
            ]
            text = (
                f"{what}, a small ResNet with {width} channels in its last stage, test accuracy: regime with ε = 1 / "
                "ε = 10 / plain SGD"
            )
            rows.append(Row(text, " / ".join(said), command(f"narrow_fig5_{name}")))
    return rows
