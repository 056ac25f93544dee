"""Exact nets that are found, convergence and stationary points."""

from __future__ import annotations

from measured.reading import Record, Row, bench, experiment, figure, result, short, the, whole, whole_record


def memorizing() -> list[Row]:
    """Exact nets that are found."""
    found, images = result("memorize"), result("memorize_images")
    seeds = the(found, name="seeds")
    gaussian = [r for r in found if r["name"] == "gaussian"]
    digits = the(found, name="digits")
    mnist, more, cifar = images
    proven = [r for r in figure("narrow_theorem1") if r["holds"]]
    solved = [r for r in figure("narrow_theorem1") if r["status"] != "refused"]
    steps = [r["steps"] for r in proven]
    deep = figure("deep_theorem1")
    one, two = (the(deep, dataset="d = 3, more", depth=depth) for depth in (1, 2))
    layers = [the(deep, dataset=name, depth=1)["neurons"] for name in ("mnist", "digits")]
    command = bench("memorize", "--raw-dir DIR")
    kkt = [r for r in figure("narrow_fig4") if r["method"] == "KKT solver"]
    residual = max(r["residual"] for r in kkt)
    loss = max(r["loss"] for r in figure("narrow_theorem2_gaussian") if r["width"] >= 16)
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
            f"`memorize`, {whole(digits['samples'])} digits with random labels, {digits['width']} neurons, with "
            "certificate",
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
            f"{cifar['seconds_certified']:.0f} s, {cifar['steps']} steps, {cifar['peak_gb']:.1f} GB for the whole "
            "process",
            command,
        ),
        all_images(),
        Row(
            "Theorem 1: instances with m ≥ 2n/d that are solved and proven within ε = 0.1",
            f"{len(proven)} of {len(solved)}, {min(steps)} or {max(steps)} steps",
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


def all_images() -> Row:
    """All training images of CIFAR-10 with random labels, memorised and certified."""
    found, proven = largest()
    assert proven["holds"]
    search, proof = found["seconds"] / 60, proven["seconds"] / 60
    return Row(
        f"all {whole(found['samples'])} training images of CIFAR-10 with random labels, {found['width']} neurons, "
        "ε = 0.1: exact net, with certificate",
        f"{search + proof:.0f} minutes ({search:.0f} to find it, {proof:.0f} to prove it), "
        f"{proven['peak_gb']:.0f} GB for the whole process",
        experiment("narrow_all_images", "--all --raw-dir DIR"),
    )


def largest() -> tuple[Record, Record]:
    """Return the records of the most images: found and certified."""
    done = [r for r in figure("narrow_all_images") if r["outcome"] != "skipped"]
    most = max(r["samples"] for r in done)
    return the(done, samples=most, stage="memorise"), the(done, samples=most, stage="certify")


def convergence() -> list[Row]:
    """Gradient descent under its proven bound."""
    found = figure("descent_bound")
    narrow, deep, digits, wide = found
    names = ("narrow pair", "deep pair", "digits", "one wide layer")
    assert [r["name"] for r in found] == list(names) and all(r["never_exceeded"] for r in found)  # noqa: PT018
    best = max(r["practical"]["learning_rate"] / r["learning_rate"] for r in (narrow, deep, digits))
    pyramids = figure("pyramidal_convergence")

    def shares(name: str) -> str:
        record = the(pyramids, case=name)
        return " / ".join(short(record[kind]["rate"]) for kind in ("paper", "sharper", "practical"))

    by_theorem = wide["theorem_3_2"]
    stars = [r for r in figure("pyramidal_lambda_star") if r["kind"] == "lambda_star"]

    def star(inputs: int) -> str:
        square = {"inputs": inputs, "samples": inputs**2, "activation": "smooth_leaky_relu(0.5, 1.0)"}
        return f"{min(r['value'] for r in stars if square.items() <= r.items()):.4f}"

    return [
        Row(
            "gradient descent, steps in which the loss provably falls by 1e4: narrow pair (n = 100, d = 20, m = 40), "
            "deep pair, 500 digits with random labels and 120 neurons",
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
    grid = whole_record("depth_width_fig1_synthetic")
    large = result("stationary_value_large")[0]
    cholesky = the(result("stationary_value"), size="20,000 × 2,970", method="cholesky")
    return [
        Row(
            "stationary value over 5 depths × 5 widths before and after training, "
            f"{whole(grid['settings']['samples'])} "
            f"samples, {grid['settings']['seeds']} seeds, training included",
            f"{grid['seconds']:.0f} s",
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
