"""What was measured, read from the records in benchmarks/results and docs/figures: no number of it is typed.

``rows`` is the table of the page on benchmarks, five rows of which are in the README; ``substitutions`` names numbers
for the text of the pages.
"""

from __future__ import annotations

from measured import reproduction
from measured.claims import cost
from measured.commands import command
from measured.reading import ROOT, Row, accuracy, figure, percent, recorded, result, table, the, whole
from measured.sizes import sizes
from measured.solvers import convergence, largest, memorizing, stationary
from measured.spectra import reliability, spectra
from measured.training import residual_nets, training

PARTS = (training, memorizing, convergence, stationary, spectra, sizes, reliability)


def rows() -> list[Row]:
    """Return the whole table."""
    return [row for part in PARTS for row in part()]


def substitutions() -> dict[str, str]:
    """Return the numbers that the pages name."""
    cells = figure("narrow_images_cifar10")
    cifar = {
        f"cifar_{method}_{width}": accuracy(the(cells, width=width, radius=radius))
        for width in (8, 32, 128)
        for method, radius in (("regime", 1.0), ("sgd", None))
    }
    batches = result("minibatch")
    eager = [r["result"].replace("×", " ×") for r in batches if r["what"] == "against PyTorch eager"]
    alone = [r["result"] for r in batches if r["what"] == "batches and products alone, by NumPy"]
    projection = [r["result"] for r in result("training") if r["what"] == "projection in an SGD step"]
    memorized, certified = largest()
    regime, ball, free = figure("demo")
    large, blocks = (
        the(result("spectra"), size="n=2000, d=3072, m=66", what=what)
        for what in ("certified, process of its own", "QR by blocks, once")
    )
    return {
        **cifar,
        "demo_regime": percent(regime["accuracy"], 0),
        "demo_ball": percent(ball["accuracy"], 0),
        "demo_distance": f"{free['distance_over_radius']:.0f}",
        "residual_nets": table(residual_nets()),
        "blocks_seconds": f"{blocks['seconds']:.0f}",
        "large_seconds": f"{large['seconds']:.1f}",
        "large_gb": f"{large['peak_gb']:.2f}",
        "faults": str(
            sum(path.read_text().count("\n@case(") for path in (ROOT / "benchmarks").glob("_faults_*.py"))
        ),
        "torch_at_3072": eager[-1],
        "products_at_3072": f"{1 / float(alone[-1].rstrip('×')):.1f} times",
        "projection_large": projection[0],
        "projection_small": projection[1],
        "memorized_samples": whole(memorized["samples"]),
        "memorized_width": str(memorized["width"]),
        "memorized_minutes": f"{(memorized['seconds'] + certified['seconds']) / 60:.0f}",
        "memorized_gb": f"{certified['peak_gb']:.0f}",
        **{f"table_{part.__name__}": table(part()) for part in PARTS},
        **made(),
        **reproduction.substitutions(),
    }


def made() -> dict[str, str]:
    """Return how each record was made: its command, and what it took."""
    return {f"made_{name}": f"{command(name)}, {cost([name])}" for name in recorded()}
