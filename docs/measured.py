"""What was measured, read from the records in benchmarks/results and docs/figures: no number of it is typed.

``rows`` is the table of the page on benchmarks, five rows of which are in the README; ``substitutions`` names numbers
for the text of the pages.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
RESULTS, FIGURES = ROOT / "benchmarks" / "results", ROOT / "docs" / "figures"

Record = dict[str, Any]


class Row(NamedTuple):
    """A row of the table: what, what came out, and the command that says so."""

    what: str
    measured: str
    command: str

    def __str__(self) -> str:
        """Return the row in Markdown."""
        return f"| {self.what} | {self.measured} | {self.command} |"


def result(name: str) -> list[Record]:
    """Return the records of a benchmark."""
    return json.loads((RESULTS / f"{name}.json").read_text())["records"]


def figure(name: str) -> list[Record]:
    """Return the records behind a figure."""
    content = json.loads((FIGURES / f"{name}.json").read_text())
    return content if isinstance(content, list) else content.get("records") or content["cells"]


def the(records: list[Record], **wanted: Any) -> Record:
    """Return the one record with these fields."""
    (record,) = (r for r in records if all(r.get(name) == value for name, value in wanted.items()))
    return record


def bench(name: str, options: str = "") -> str:
    """Return the command of a benchmark, as code."""
    return f"`python -m benchmarks.{name}{options and ' ' + options}`"


def experiment(name: str, options: str = "") -> str:
    """Return the command of an experiment, as code."""
    return f"`python -m experiments.{name}{options and ' ' + options}`"


def percent(share: float, digits: int = 1) -> str:
    """Return a share in per cent."""
    return f"{100 * share:.{digits}f} %"


def short(number: float, digits: int = 2) -> str:
    """Return a number with few digits, in words of powers of ten where it is far from 1."""
    text = f"{number:.{digits}g}"
    return text.replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def times(ratio: float) -> str:
    """Return a ratio as people say it."""
    return f"{ratio:.2g} ×" if ratio < 10 else f"{ratio:.0f} ×"


def whole(number: float) -> str:
    """Return a count with its thousands apart."""
    return f"{number:,.0f}"


def accuracy(cell: Record) -> str:
    """Return the mean test accuracy over seeds."""
    return percent(statistics.mean(cell["test_accuracy"]))


def mean_and_deviation(cells: list[Record]) -> str:
    """Return mean and standard deviation of the test accuracy over seeds."""
    values = [100 * cell["test_accuracy"] for cell in cells]
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f} %"


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
        Row(f"{text}, {size}", the(found, what=what, size=size)["result"].replace("×", " ×"), bench("training"))
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
            "minibatches (digits / MNIST / CIFAR-10 in size), the regime against a plain Flax and optax loop: images per "
            "second",
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
        *restricted_imagenet(),
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
            " / ".join(accuracy(the(cells, width=width, method=method)) for method in ("regime", "SGD")),
            experiment("narrow_images", "--dataset cifar10"),
        )
        for width in (8, 32, 128)
    ]


def restricted_imagenet() -> list[Row]:
    """Test accuracy on Restricted ImageNet over the width of the last stage."""
    cells = figure("narrow_fig5_restricted_imagenet")
    what = (
        "Restricted ImageNet, 920 training images of 64 × 64, a small ResNet with {} channels in its last stage, test "
        "accuracy (3 seeds): regime with ε = 1 / plain SGD"
    )

    def of(width: int, radius: float | None) -> str:
        return mean_and_deviation([c for c in cells if (c["width"], c["radius"]) == (width, radius)])

    command = experiment("narrow_fig5", "--dataset restricted-imagenet --images DIR --seeds 3")
    return [
        Row(what.format(width), f"{of(width, 1.0)} / {of(width, None)}", command) for width in (16, 32, 64, 128)
    ]


def memorizing() -> list[Row]:
    """Exact nets that are found."""
    found, images = result("memorize"), result("memorize_images")
    seeds = the(found, name="seeds")
    gaussian = [r for r in found if r["name"] == "gaussian"]
    digits = the(found, name="digits")
    mnist, more, cifar = images
    proven = [r for r in figure("narrow_theorem1") if r["holds"]]
    solved = [r for r in figure("narrow_theorem1") if r["status"] != "refused"]
    deep = figure("deep_theorem1")
    one, two = (the(deep, dataset="d = 3", n=1000, depth=depth) for depth in (1, 2))
    layers = [the(deep, dataset=name, depth=1)["neurons"] for name in ("mnist", "digits")]
    command = bench("memorize", "--raw-dir DIR")
    kkt = [r for r in figure("narrow_fig4") if r["method"] == "KKT solver"]
    residual = max(r["residual"] for r in kkt)
    loss = max(r["loss"] for r in figure("narrow_theorem2") if r["width"] >= 16)
    return [
        Row(
            "`memorize`, n=1000, d=50, m=44, ε = 0.1 / 1: exact net, with certificate",
            " / ".join(f"{r['seconds_certified']:.2f} s" for r in gaussian)
            + f", {' and '.join(str(r['steps']) for r in gaussian)} Newton steps; "
            f"{seeds['solved_in_5_steps_and_certified']} of {seeds['runs']} runs certified in at most "
            f"{seeds['most_steps']}",
            bench("memorize"),
        ),
        Row(
            f"`memorize`, {whole(digits['samples'])} digits with random labels, {digits['width']} neurons, with certificate",
            f"{digits['seconds_certified']:.2f} s, {digits['steps']} steps",
            bench("memorize"),
        ),
        Row(
            f"`memorize`, {whole(mnist['samples'])} MNIST images with random labels, {mnist['width']} neurons, with "
            "certificate",
            f"{mnist['seconds_certified']:.1f} s, {mnist['steps']} steps",
            command,
        ),
        Row(
            f"the same, {whole(more['samples'])} images, {more['width']} neurons",
            f"{more['seconds_certified']:.0f} s, {more['steps']} steps",
            command,
        ),
        Row(
            f"the same, {whole(cifar['samples'])} CIFAR-10 images, {cifar['width']} neurons",
            f"{cifar['seconds_certified']:.0f} s, {cifar['steps']} steps, {cifar['peak_gb']:.1f} GB for the whole process",
            command,
        ),
        Row(
            "Theorem 1: instances with m ≥ 2n/d that are solved and proven within ε = 0.1",
            f"{len(proven)} of {len(solved)}, {min(r['steps'] for r in proven)} or {max(r['steps'] for r in proven)} steps",
            experiment("narrow_theorem1"),
        ),
        Row(
            "neurons of the first pair that is proven to fit 1,000 random labels in 3 dimensions within ε = 0.1: one "
            "hidden layer / two",
            f"{one['neurons']} / {two['neurons']}",
            experiment("deep_theorem1"),
        ),
        Row(
            "the same: 2,000 MNIST images / 1,797 digits, one hidden layer (two or three take more)",
            " / ".join(map(str, layers)),
            experiment("deep_theorem1", "--raw-dir DIR"),
        ),
        Row(
            "KKT points of problem (7), 5 widths × 5 radii, pairwise and standard net: largest residual",
            f"{short(residual, 1)}, {len(kkt)} of {len(kkt)} points",
            experiment("narrow_fig4"),
        ),
        Row(
            "loss at KKT points, n=40, d=8, m = 16 and 24, eight radii from 0.001 to 3: the largest",
            short(loss, 1),
            experiment("narrow_theorem2"),
        ),
    ]


def convergence() -> list[Row]:
    """Gradient descent under its proven bound."""
    found = figure("descent_bound")
    narrow, deep, digits, wide = found
    names = ("narrow pair", "deep pair", "digits", "one wide layer")
    assert [r["name"] for r in found] == list(names) and all(r["never_exceeded"] for r in found)  # noqa: PT018
    best = max(r["practical"]["learning_rate"] / r["learning_rate"] for r in (narrow, deep, digits))
    pyramids = figure("pyramidal_convergence")

    def shares(name: str) -> str:
        record = the(pyramids, name=name)
        return " / ".join(short(record[kind]["rate"]) for kind in ("paper", "sharper", "practical"))

    by_theorem = wide["theorem_3_2"]
    stars = [r for r in figure("pyramidal_lambda_star") if r["kind"] == "lambda_star"]

    def star(inputs: int) -> str:
        square = dict(inputs=inputs, samples=inputs**2, activation="smooth_leaky_relu(0.5, 1.0)")
        return f"{min(r['value'] for r in stars if square.items() <= r.items()):.4f}"

    return [
        Row(
            "gradient descent, steps in which the loss provably falls by 1e4: narrow pair (n = 100, d = 20, m = 40), deep "
            "pair, 500 digits with random labels and 120 neurons",
            " / ".join(whole(r["steps_to_target"]) for r in (narrow, deep, digits))
            + f"; bound never exceeded, the best step of a search {best:.0f} × the certified one",
            experiment("descent_bound"),
        ),
        Row(
            "the same for a net of Theorem 3.2, beside its sharper / its own constants",
            f"{whole(wide['steps_to_target'])} / {whole(by_theorem['sharper']['steps'])} / "
            f"{whole(by_theorem['paper']['steps'])}",
            experiment("descent_bound"),
        ),
        Row(
            "deep nets, share of the loss that a step provably removes, paper / sharper / seen with the best step: "
            "Gaussian, N=5, L=2",
            shares("Gaussian, N=5, L=2"),
            experiment("pyramidal_convergence"),
        ),
        Row("the same: digits, N=20, L=3", shares("digits, N=20, L=3"), experiment("pyramidal_convergence")),
        Row(
            "λ_* at N = d², d = 10, 20, 30, γ = 0.5, β = 1",
            ", ".join(map(star, (10, 20, 30))),
            experiment("pyramidal_lambda_star"),
        ),
    ]


def stationary() -> list[Row]:
    """The loss of stationary points."""
    cells = figure("depth_width_synthetic")
    large = result("stationary_value_large")[0]
    cholesky = the(result("stationary_value"), size="20,000 × 2,970", method="cholesky")
    return [
        Row(
            "stationary value over 5 depths × 5 widths before and after training, 5,000 samples",
            f"{sum(c['seconds'] for c in cells):.0f} s",
            experiment("depth_width_fig1", "--dataset synthetic"),
        ),
        Row(
            "stationary value of a net with 3,092 weights on 10,000 samples × 10 outputs (D is 100,000 × 3,092)",
            f"{large['seconds']:.0f} s, {large['gigabytes_of_the_process']:.2f} GB for the whole process",
            bench("stationary_value", "--large"),
        ),
        Row(
            "the same, 20,000 × 2,970, against the SVD of D",
            f"{cholesky['times_faster']:.1f} × faster, {cholesky['part_of_memory']:.2f} × the memory, values equal to "
            f"{short(cholesky['difference'], 1)}",
            bench("stationary_value"),
        ),
    ]


def spectra() -> list[Row]:
    """σ_min and its proof."""
    found, deep, any_net = result("spectra"), result("deep_spectra"), result("autodiff")
    sized = [r for r in found if r.get("size") == "n=2000, d=100, m=80"]
    certified, plain, qr, svd, eigh, torch, lobpcg, matfree = (
        the(sized, what=what)
        for what in (
            "certified",
            "uncertified",
            "QR, SVD of R (SciPy)",
            "jnp.linalg.svd",
            "jnp.linalg.eigvalsh of JJᵀ",
            "torch.func, linalg.svdvals",
            "LOBPCG of JAX, 200 steps",
            "matfree Lanczos, 200 steps",
        )
    )
    large, many = (
        the(found, what="certified, process of its own", size=size)
        for size in ("n=2000, d=3072, m=66", "n=6000, d=784, m=48")
    )
    operator, dense, gram = deep
    by_hand, _, proven, unproven = any_net
    monitor = [r for r in found if r["what"].startswith("monitor, ε=")]

    def faster(ours: Record, *others: Record) -> str:
        return " / ".join(f"{other['seconds'] / ours['seconds']:.1f} ×" for other in others)

    return [
        Row(
            "certified σ_min, n=2000, d=100, m=80, against QR and SVD of R / `jnp.linalg.svd` of the dense Jacobian",
            f"{certified['seconds']:.2f} s: {faster(certified, qr, svd)} faster",
            bench("spectra"),
        ),
        Row(
            "the same, not certified",
            f"{plain['seconds']:.2f} s: {faster(plain, qr, svd)} faster",
            bench("spectra"),
        ),
        Row(
            f"the same against `torch.func` and `linalg.svdvals` ({torch['seconds']:.1f} s), `eigvalsh` of JJᵀ in JAX "
            f"({eigh['seconds']:.1f} s)",
            f"{faster(certified, torch, eigh)} faster",
            bench("spectra"),
        ),
        Row(
            f"the same, 200 steps of matfree's Lanczos or JAX's LOBPCG ({matfree['seconds']:.1f} s, "
            f"{lobpcg['seconds']:.1f} s)",
            f"their relative error is {percent(matfree['relative_error'], 0)} and {percent(lobpcg['relative_error'], 0)}",
            bench("spectra"),
        ),
        Row(
            "certified σ_min, n=2000, d=3072, m=66 (the Jacobian would be 3.2 GB)",
            f"{large['seconds']:.1f} s, {large['peak_gb']:.2f} GB for the whole process",
            bench("spectra"),
        ),
        Row(
            "certified σ_min, n=6000, d=784, m=48",
            f"{many['seconds']:.1f} s, {many['peak_gb']:.1f} GB for the whole process",
            bench("spectra"),
        ),
        Row(
            "σ_min along training, n=1000, d=50, m=60, ε = 0.1, 1, 10: largest error, cost against a fresh value",
            ", ".join(short(r["relative_error"], 1) for r in monitor)
            + "; "
            + ", ".join(r["result"].rsplit(" ", 1)[1] for r in monitor),
            bench("spectra"),
        ),
        Row(
            "certified σ_min of a deep net, n=2000, d=100, widths (60, 60, 1), against the dense Jacobian with QR and SVD / "
            "with its Gram matrix",
            f"{operator['seconds']:.2f} s: {dense['times_the_operator']:.1f} × / {gram['times_the_operator']:.1f} × faster",
            bench("deep_spectra"),
        ),
        Row(
            "σ_min of any function's Jacobian by `autodiff`, 475,200 weights, 10 samples, against vmap(grad) and NumPy's "
            f"SVD by hand ({by_hand['seconds']:.2f} s, no proof)",
            f"{unproven['times_by_hand']:.2f} × its time without a proof, {proven['times_by_hand']:.2f} × with one",
            bench("autodiff"),
        ),
        *first_calls(),
    ]


def first_calls() -> list[Row]:
    """What a new process waits for."""
    found = result("first_call")

    def seconds(what: str) -> float:
        return the(found, what=what)["seconds"]

    return [
        Row(
            "first call of a new process: σ_min of 300 × 1,200",
            f"{seconds('sigma_min, 300 × 1,200'):.2f} s",
            bench("first_call"),
        ),
        Row(
            "the same: another shape, 5 × 11 after 5 × 10 / `memorize` of 200 samples / `import narrow_jax` over its "
            "dependencies / `narrow-jax --help`",
            " / ".join(
                f"{seconds(what):.{digits}f} s"
                for what, digits in (
                    ("sigma_min, 5 × 11 after 5 × 10", 3),
                    ("memorize, 200 samples, 30 neurons", 1),
                    ("import narrow_jax, over jax, flax, optax", 2),
                    ("narrow-jax --help", 2),
                )
            ),
            bench("first_call"),
        ),
    ]


def reliability() -> list[Row]:
    """Campaigns against the library's own answers."""
    compiled, campaign = result("aot"), result("adversary")[0]
    return [
        Row(
            "random and hill-climbed problems against σ_min and every certificate, truth by formulas of their own in exact "
            "and 150-digit arithmetic: certified answers that missed it",
            f"{campaign['missed']} of {whole(campaign['certified'])} ({whole(campaign['problems'])} problems)",
            bench("adversary", "--problems 3000"),
        ),
        Row(
            "every kind of program, compiled for TPU v5e and for one, four and eight H100 on a machine without",
            f"{len(compiled)} programs, the longest {max(r['compile_seconds'] for r in compiled):.0f} s (beside other work)",
            bench("aot") + " (after `make aot`)",
        ),
    ]


def rows() -> list[Row]:
    """Return the whole table."""
    parts = (training, memorizing, convergence, stationary, spectra, reliability)
    return [row for part in parts for row in part()]


def table(part: list[Row]) -> str:
    """Return rows as a table in Markdown."""
    return "\n".join(("| what | measured | command |", "|---|---|---|", *map(str, part)))


def substitutions() -> dict[str, str]:
    """Return the numbers that the pages name."""
    cells = figure("narrow_images_cifar10")
    cifar = {
        f"cifar_{method.lower()}_{width}": accuracy(the(cells, width=width, method=method))
        for width in (8, 32, 128)
        for method in ("regime", "SGD")
    }
    eager = [r["result"].replace("×", " ×") for r in result("minibatch") if r["what"] == "against PyTorch eager"]
    projection = [r["result"] for r in result("training") if r["what"] == "projection in an SGD step"]
    memorized = max(result("memorize_images"), key=lambda r: r["samples"])
    regime, ball, free = figure("demo")
    spectra_of = result("spectra")
    return {
        **cifar,
        "demo_regime": percent(regime["accuracy"], 0),
        "demo_ball": percent(ball["accuracy"], 0),
        "demo_distance": f"{free['distance_over_radius']:.0f}",
        "restricted_imagenet": table(restricted_imagenet()),
        "blocks_seconds": f"{the(spectra_of, what='QR by blocks, once')['seconds']:.0f}",
        "large_line": f"σ_min of 2,000 samples of 3,072 inputs and 66 units, whose Jacobian would be 3.2 GB, takes "
        f"{the(spectra_of, size='n=2000, d=3072, m=66', status='certified')['seconds']:.1f} s and "
        f"{the(spectra_of, size='n=2000, d=3072, m=66', status='certified')['peak_gb']:.2f} GB on two cores (`python -m benchmarks.spectra`).",
        "large_seconds": f"{the(spectra_of, size='n=2000, d=3072, m=66', status='certified')['seconds']:.1f}",
        "faults": str(sum(path.read_text().count("\n@case(") for path in (ROOT / "benchmarks").glob("_faults_*.py"))),
        "torch_at_3072": eager[-1],
        "projection_large": projection[0],
        "projection_small": projection[1],
        "memorized_samples": whole(memorized["samples"]),
        "memorized_seconds": f"{memorized['seconds_certified']:.0f}",
        "memorized_gb": f"{memorized['peak_gb']:.1f}",
        **{
            f"table_{part.__name__}": table(part())
            for part in (training, memorizing, convergence, stationary, spectra, reliability)
        },
    }
