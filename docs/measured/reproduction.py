"""What the papers claim, what was found, and a verdict: the table of the page on reproduction."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from measured.reading import Record, experiment, figure, percent, short, whole, whole_record

AGREES, IN_PART, NOT = "agrees", "agrees in part", "does not"


class Claim(NamedTuple):
    """A row of the table; ``records`` are those behind what was found."""

    claim: str
    ours: str
    verdict: str
    command: str
    records: tuple[str, ...]

    def __str__(self) -> str:
        """Return the row in Markdown."""
        return f"| {self.claim} | {self.ours} | **{self.verdict}** | {self.command} | {cost(self.records)} |"


def cost(records: Iterable[str]) -> str:
    """Return what the records took, in minutes."""
    seconds = sum(whole_record(name)["seconds"] for name in records)
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def numbers(records: list[Record], field: str = "loss", **wanted: Any) -> list[float]:
    """Return the values of a field in the records whose fields are among those wanted."""
    return [float(r[field]) for r in records if all(r[name] in among for name, among in wanted.items())]


def figure4() -> list[Claim]:
    """Figure 4, with κ of the paper and without."""
    both = [(kappa, figure(name)) for kappa, name in (("1", "narrow_fig4_kappa1"), ("∞", "narrow_fig4"))]
    wide, small = (20, 40), (0.1, 0.3, 1.0)

    def told(text: str, of: Any) -> str:
        return "; ".join(f"κ = {kappa}: {text.format(*map(short, of(cells)))}" for kappa, cells in both)

    pgd, scaled, solver = "PGD", "PGD in ball coordinates", "KKT solver"
    names = ("narrow_fig4_kappa1", "narrow_fig4")
    command = experiment("narrow_fig4", "[--kappa 1]")
    return [
        Claim(
            "Figure 4 a: under the constraints the loss is low at every ε from m = 2n/d on",
            told(
                "m = 20 and 40: KKT points end at {} at most; with ε ≤ 1, descent in the coordinates of the ball at {} "
                "to {}",
                lambda c: (
                    max(numbers(c, net=["pairwise"], method=[solver], width=wide)),
                    min(numbers(c, net=["pairwise"], method=[scaled], width=wide, radius=small)),
                    max(numbers(c, net=["pairwise"], method=[scaled], width=wide, radius=small)),
                ),
            ),
            AGREES,
            command,
            names,
        ),
        Claim(
            "Projected gradient descent, as the paper writes it, finds these points",
            told(
                "with ε ≤ 1 it stays at {} and more at every width: one step size cannot serve both layers",
                lambda c: [min(numbers(c, net=["pairwise"], method=[pgd], radius=small))],
            ),
            NOT,
            command,
            names,
        ),
        Claim(
            "Figure 4 b: σ_min of the Jacobian at the solution stays away from 0",
            told(
                "at m = 20 and 40 it is {} at least at the KKT points",
                lambda c: [min(numbers(c, "sigma_min", net=["pairwise"], method=[solver], width=wide))],
            ),
            AGREES,
            command,
            names,
        ),
        Claim(
            "Figure 4 c: regular training (ε = 1000) fails when the net is narrow",
            told(
                "standard net, m = 12 to 40, ε = 1000: {} at most by gradient descent, {} by Adam, far from the start",
                lambda c: [
                    max(numbers(c, net=["standard"], method=[m], width=(12, 20, 40), radius=[1000.0]))
                    for m in (pgd, scaled)
                ],
            ),
            NOT,
            command,
            names,
        ),
        Claim(
            "Figure 4 c: the standard net fails in a small ball",
            told(
                "ε ≤ 0.3: {} and more by every method and at every width",
                lambda c: [min(numbers(c, net=["standard"], radius=(0.1, 0.3)))],
            ),
            AGREES,
            command,
            names,
        ),
        Claim(
            "Figure 4 d: the Jacobian of the regular net is singular at ε = 1000",
            told(
                "m = 20 and 40: σ_min is {} at least",
                lambda c: [
                    min(
                        numbers(
                            c, "sigma_min", net=["standard"], method=[scaled], width=wide, radius=[1000.0]
                        )
                    )
                ],
            ),
            NOT,
            command,
            names,
        ),
    ]


def theorems() -> list[Claim]:
    """Theorems 1 and 2, and which ingredient does what."""
    one, deep = figure("narrow_theorem1"), figure("deep_theorem1")
    solved = [r for r in one if r["status"] != "refused"]
    two = {name: figure(f"narrow_theorem2_{name}") for name in ("gaussian", "digits", "mnist")}
    admitted = {name: whole_record(f"narrow_theorem2_{name}")["settings"]["width_admitted"] for name in two}
    kkt = "; ".join(
        f"{name}, m ≥ 2n/d: {short(max(numbers([r for r in cells if r['width'] >= admitted[name]])))} at most"
        for name, cells in two.items()
    )
    narrower = [r for r in two["gaussian"] if r["width"] < admitted["gaussian"]]
    ablation = figure("narrow_ablation")
    eight = {
        (mirrored, paired): max(
            numbers(ablation, mirrored=[mirrored], pairwise=[paired], radius=[0.1], width=[40])
        )
        for mirrored in (True, False)
        for paired in (True, False)
    }
    return [
        Claim(
            "Theorem 1: with m ≥ 2n/d a net of zero loss lies within any ε of the start",
            f"{sum(r['holds'] for r in solved)} of {len(solved)} Gaussian instances found and proven (Newton's method)",
            AGREES,
            experiment("narrow_theorem1"),
            ("narrow_theorem1",),
        ),
        Claim(
            "Section 6: the same for deep nets (left open)",
            f"{sum(r['proven'] for r in deep)} of {len(deep)} nets of one to three hidden layers are proven",
            AGREES,
            experiment("deep_theorem1", "--raw-dir DIR"),
            ("deep_theorem1",),
        ),
        Claim(
            "Theorem 2: the loss of KKT points is O(ε²)",
            f"{kkt}, where no law of ε is left to see; m < 2n/d: {short(max(numbers(narrower)))} at ε = 0.001, and no "
            "ε² law either",
            AGREES,
            experiment("narrow_theorem2", "--dataset gaussian"),
            tuple(f"narrow_theorem2_{name}" for name in two),
        ),
        Claim(
            "Mirrored start, pairwise head and ball go together",
            f"n = 100, m = 40, ε = 0.1: {short(eight[True, True])} with all three, {short(eight[True, False])} without "
            f"the head, {short(eight[False, True])} and {short(eight[False, False])} without the start",
            AGREES,
            experiment("narrow_ablation"),
            ("narrow_ablation",),
        ),
        Claim(
            "With κ = 1 the output weights never touch the boundary of their cone",
            "κ = 1 is v_i = v_j: the cone has no interior, and every v lies on its boundary",
            NOT,
            experiment("narrow_fig4", "--kappa 1"),
            (),
        ),
    ]


def images() -> list[Claim]:
    """Random labels and test accuracies."""
    random = [r for r in figure("narrow_random_labels") if r["method"] == "projected descent"]
    newton = [r for r in figure("narrow_random_labels") if r["method"] == "memorize"]

    def least(case: str, kind: str) -> str:
        rows = [r for r in random if (r["dataset"], r["kind"]) == (case, kind)]
        reached = [r for r in rows if r["all_at"] is not None]
        if reached:
            first = min(reached, key=lambda r: r["width"])
            return f"all with {first['width']} units at step {whole(first['all_at'])}"
        best = max(rows, key=lambda r: r["learned"][-1])
        return f"{percent(best['learned'][-1])} with {best['width']} units"

    proven, said = sum(r["proven"] for r in newton), []
    for case, name in (
        ("digits", "1,797 digits"),
        ("mnist", "MNIST, 3,000"),
        ("cifar10", "CIFAR-10, 2,000"),
        ("cifar10_more", "CIFAR-10, 10,000"),
    ):
        of_kind = [least(case, kind) for kind in ("±1, whitened", "ten classes, whitened", "±1, scaled")]
        said.append(f"{name}: ±1 {of_kind[0]}, ten classes {of_kind[1]}, ±1 not whitened {of_kind[2]}")
    most = [r for r in figure("narrow_all_images") if r["outcome"] == "certified"]
    largest = max(most, key=lambda r: r["samples"])
    return [
        Claim(
            "Appendix H.6: narrow nets memorise random labels of CIFAR-10 under the constraints",
            f"{'; '.join(said)}. Newton's method in the same ball: {proven} of {len(newton)} proven",
            AGREES,
            experiment("narrow_random_labels", "--raw-dir DIR"),
            ("narrow_random_labels",),
        ),
        Claim(
            "Beyond the paper: all training images of CIFAR-10",
            f"{whole(largest['samples'])} images, random ±1 labels: memorised with {largest['width']} units and proven",
            AGREES,
            experiment("narrow_all_images", "--all --raw-dir DIR"),
            ("narrow_all_images",),
        ),
        *map(accuracy_claim, ("mnist", "cifar10", "cifar10_all", "cifar100_subset")),
    ]


def mean_and_error(values: list[float], images: int) -> tuple[float, float]:
    """Return the mean over seeds, and its error from the seeds and from the number of test images, in per cent."""
    mean = sum(values) / len(values)
    of_seeds = sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values)
    return 100 * mean, 100 * math.sqrt(of_seeds + mean * (1 - mean) / images)


def accuracy_claim(name: str) -> Claim:
    """Return the claim on test accuracy, judged by standard errors at each width."""
    content = whole_record(f"narrow_images_{name}")
    s, cells = content["settings"], content["cells"]
    told, better, worse = [], 0, 0
    for width in sorted({r["width"] for r in cells}):
        rows = [r for r in cells if r["width"] == width]
        [plain] = [r for r in rows if r["radius"] is None]
        regime = max((r for r in rows if r["radius"] is not None), key=chosen_by)
        (a, da), (b, db) = (mean_and_error(r["test_accuracy"], r["test_images"]) for r in (regime, plain))
        better += a - b > 2 * math.hypot(da, db)
        worse += b - a > 2 * math.hypot(da, db)
        told.append(
            f"m = {width}: {a:.1f} ± {da:.1f} % (ε = {float(regime['radius']):g}) / {b:.1f} ± {db:.1f} %"
        )
    verdict = NOT if worse and not better else IN_PART if worse else AGREES
    return Claim(
        f"Appendix H, {s['dataset'].replace('_', ' ')}, {whole(s['samples'])} training images: test accuracy of the "
        "regime is higher than that of regular training, or competitive",
        f"regime / plain SGD, both by one grid of step sizes and held-out images: {'; '.join(told)}",
        verdict,
        experiment("narrow_images", f"--dataset {s['dataset']} --raw-dir DIR"),
        (f"narrow_images_{name}",),
    )


def chosen_by(record: Record) -> float:
    """Return the held-out accuracy that a cell's step size was chosen by."""
    return max(record["held_out_accuracy_of_rates_times_d"].values())


PAPERS = {"narrow": (figure4, theorems, images)}
"""The claims of each paper."""


def substitutions() -> dict[str, str]:
    """Return what the page on reproduction shows."""
    by_paper = {paper: [claim for part in parts for claim in part()] for paper, parts in PAPERS.items()}
    claims = [claim for of_paper in by_paper.values() for claim in of_paper]
    used = sorted({name for claim in claims for name in claim.records})
    seconds = sum(whole_record(name)["seconds"] for name in used)
    counts = {
        verdict: sum(claim.verdict == verdict for claim in claims) for verdict in (AGREES, IN_PART, NOT)
    }
    not_seen = [
        f"* {claim.claim}: {claim.ours} ({claim.command})" for claim in claims if claim.verdict == NOT
    ]
    return {
        **{f"reproduction_{paper}": table(of_paper) for paper, of_paper in by_paper.items()},
        "reproduction_not": "\n".join(not_seen),
        "reproduction_counts": ", ".join(f"{count} × {verdict}" for verdict, count in counts.items()) + ".",
        "reproduction_hours": f"{seconds / 3600:.1f}",
    }


def table(claims: list[Claim]) -> str:
    """Return the claims as a table in Markdown."""
    head = ("| the paper's claim | ours | verdict | command | cost |", "|---|---|---|---|---|")
    return "\n".join((*head, *map(str, claims)))
