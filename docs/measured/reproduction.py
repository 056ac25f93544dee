"""What the papers claim, what was found, and a verdict: the tables of the page on reproduction."""

from __future__ import annotations

from measured import images, narrow, theory
from measured.claims import AGREES, IN_PART, NOT, OPEN, Claim, plain
from measured.reading import percent, short, whole_record

PAPERS = {
    "narrow": (narrow.figure4, narrow.theorems, images.memorized, images.accuracies, images.figure5),
    "pyramidal": (theory.pyramidal,),
    "depth_width": (theory.figure1, theory.depth_width),
}
"""The claims of each paper."""


def substitutions() -> dict[str, str]:
    """Return what the page on reproduction shows."""
    by_paper = {paper: [claim for part in parts for claim in part()] for paper, parts in PAPERS.items()}
    claims = [claim for of_paper in by_paper.values() for claim in of_paper]
    used = sorted({name for claim in claims for name in claim.records})
    seconds = sum(whole_record(name)["seconds"] for name in used)
    counts = {
        verdict: sum(claim.verdict == verdict for claim in claims) for verdict in (AGREES, IN_PART, NOT, OPEN)
    }
    not_seen = [
        f"* {plain(claim.claim)}: {plain(claim.ours)} ({claim.commands})"
        for claim in claims
        if claim.verdict == NOT
    ]
    return {
        **{f"reproduction_{paper}": table(of_paper) for paper, of_paper in by_paper.items()},
        "reproduction_not": "\n".join(not_seen),
        "reproduction_counts": ", ".join(f"{count} × {verdict}" for verdict, count in counts.items()) + ".",
        "reproduction_low": percent(narrow.LOW, 0),
        "reproduction_singular": short(narrow.SINGULAR),
        "reproduction_residual": short(narrow.KKT),
        "reproduction_hours": f"{seconds / 3600:.1f}",
    }


def table(claims: list[Claim]) -> str:
    """Return the claims as a table in Markdown."""
    head = ("| the paper's claim | ours | verdict | command | cost |", "|---|---|---|---|---|")
    return "\n".join((*head, *map(str, claims)))
