"""The claims of "When Expressivity Meets Trainability" on images."""

from __future__ import annotations

import math

from experiments.narrow_all_images import ALL
from measured.claims import AGREES, IN_PART, OPEN, Claim, judged, mean_and_error, seen
from measured.reading import Record, figure, percent, whole, whole_record

COMPETITIVE = 1.0
"""Points of test accuracy that a competitive method may be below."""
KINDS = ("±1, whitened", "ten classes, whitened", "±1, scaled")


def memorized() -> list[Claim]:
    """Random labels."""
    random = [r for r in figure("narrow_random_labels") if r["method"] == "projected descent"]
    newton = [r for r in figure("narrow_random_labels") if r["method"] == "memorize"]

    def of(case: str, kind: str) -> tuple[list[Record], list[Record]]:
        rows = [r for r in random if (r["dataset"], r["kind"]) == (case, kind)]
        return rows, [r for r in rows if r["all_at"] is not None]

    def least(case: str, kind: str) -> str:
        rows, reached = of(case, kind)
        if reached:
            first = min(reached, key=lambda r: r["width"])
            return f"all with {first['width']} units at step {whole(first['all_at'])}"
        if not rows:
            return "not run"
        best = max(rows, key=lambda r: r["learned"][-1])
        return f"{percent(best['learned'][-1], 2)} with {best['width']} units"

    proven, said = sum(r["proven"] for r in newton), []
    for case, name in (
        ("digits", "1,797 digits"),
        ("mnist", "MNIST, 3,000"),
        ("cifar10", "CIFAR-10, 2,000"),
        ("cifar10_more", "CIFAR-10, 10,000"),
    ):
        of_kind = [least(case, kind) for kind in KINDS]
        said.append(f"{name}: ±1 {of_kind[0]}, ten classes {of_kind[1]}, ±1 not whitened {of_kind[2]}")
    most = [r for r in figure("narrow_all_images") if r["outcome"] == "certified"]
    largest = max(most, key=lambda r: r["samples"])
    return [
        Claim(
            "Appendix H.6: narrow nets memorise random labels of CIFAR-10 under the constraints",
            f"{'; '.join(said)}. Newton's method in the same ball: {proven} of {len(newton)} proven",
            seen(bool(of(case, kind)[1]) for case in ("cifar10", "cifar10_more") for kind in KINDS),
            ("narrow_random_labels",),
        ),
        Claim(
            "Beyond the paper: all training images of CIFAR-10",
            f"{whole(largest['samples'])} images, random ±1 labels: memorised with {largest['width']} units and proven",
            seen([largest["samples"] == ALL]),
            ("narrow_all_images",),
        ),
    ]


def accuracies() -> list[Claim]:
    """Appendix H."""
    return [accuracy_claim(name) for name in ("mnist", "cifar10", "cifar10_all", "cifar100_subset")]


def accuracy_claim(name: str) -> Claim:
    """Return the claim on test accuracy at each width; one seed leaves it open."""
    content = whole_record(f"narrow_images_{name}")
    s, cells = content["settings"], content["cells"]
    told, competitive, errors = [], [], []
    for width in sorted({r["width"] for r in cells}):
        rows = [r for r in cells if r["width"] == width]
        [plain] = [r for r in rows if r["radius"] is None]
        regime = max((r for r in rows if r["radius"] is not None), key=chosen_by)
        (a, da), (b, db) = (mean_and_error(r["test_accuracy"], r["test_images"]) for r in (regime, plain))
        competitive.append(a >= b - COMPETITIVE)
        errors += [da, db]
        told.append(
            f"m = {width}: {a:.1f} ± {da:.1f} % (ε = {float(regime['radius']):g}) / {b:.1f} ± {db:.1f} %"
        )
    return Claim(
        f"Appendix H, {s['dataset'].replace('_', ' ')}, {whole(s['samples'])} training images: test accuracy of the "
        "regime is higher than that of regular training, or competitive",
        f"regime / plain SGD, both by one grid of step sizes and held-out images: {'; '.join(told)}. The best step "
        f"size is the largest of the grid for {sum(map(at_the_end, cells))} of {len(cells)} nets",
        OPEN if math.inf in errors else seen(competitive),
        (f"narrow_images_{name}",),
    )


def at_the_end(record: Record) -> bool:
    """Return whether the best step size is the largest that was tried."""
    found = record["held_out_accuracy_of_rates_times_d"]
    return max(found, key=found.get) == max(found, key=float)


def chosen_by(record: Record) -> float:
    """Return the held-out accuracy that a cell's step size was chosen by."""
    return max(record["held_out_accuracy_of_rates_times_d"].values())


def figure5() -> list[Claim]:
    """Figure 5: residual nets whose last stage is narrow."""
    return [claim for name in ("cifar10", "restricted_imagenet") for claim in last_stages(name)]


def last_stages(name: str) -> list[Claim]:
    """Return the messages of Figure 5 for a data set; ε is the best at each width, by the test images."""
    content = whole_record(f"narrow_fig5_{name}")
    s, cells = content["settings"], content["cells"]
    widths = sorted({r["width"] for r in cells})
    radii = sorted({float(r["radius"]) for r in cells if r["radius"] is not None})

    def of(width: int, radius: float | None) -> tuple[float, float, float | None]:
        rows = [r for r in cells if (r["width"], r["radius"] and float(r["radius"])) == (width, radius)]
        return *mean_and_error([r["test_accuracy"] for r in rows], rows[0]["test_images"]), radius

    def best(width: int) -> tuple[float, float, float | None]:
        return max(of(width, radius) for radius in radii)

    def said(found: tuple[float, float, float | None]) -> str:
        error = "one seed" if math.isinf(found[1]) else f"± {found[1]:.1f}"
        return f"{found[0]:.1f} % ({error})" + (f" (ε = {found[2]:g})" if found[2] else "")

    narrow, full = widths[0], widths[-1]
    regime, plain = best(full), of(full, None)
    small, plain_small = best(narrow), of(narrow, None)
    lost = (regime[0] - small[0], plain[0] - plain_small[0])
    errors = (math.hypot(regime[1], small[1]), math.hypot(plain[1], plain_small[1]))
    what = f"Figure 5, {s['dataset'].replace('-', ' ')}"
    trained = f"a small ResNet, {s['epochs']} epochs, {whole(cells[0]['test_images'])} test images"
    records = (f"narrow_fig5_{name}",)
    return [
        Claim(
            f"{what}: at the full width the regime is above regular training",
            f"{trained}; {full} channels: regime {said(regime)}, the best ε by the test images; plain SGD "
            f"{said(plain)}",
            judged(regime[0] - plain[0], math.hypot(regime[1], plain[1])),
            records,
        ),
        Claim(
            f"{what}: the narrow net comes close to the full one under the regime, and not under SGD",
            f"{narrow} against {full} channels: regime {said(small)} / {said(regime)}, plain SGD {said(plain_small)} / "
            f"{said(plain)}",
            comes_close(lost, errors),
            records,
        ),
    ]


def comes_close(lost: tuple[float, float], errors: tuple[float, float]) -> str:
    """Return whether the regime loses nothing in a narrow net, within two standard errors, and SGD more than it."""
    more = judged(lost[1] - lost[0], math.hypot(*errors))
    return IN_PART if more == AGREES and lost[0] > 2 * errors[0] else more
