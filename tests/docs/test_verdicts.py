"""The verdicts of the page on reproduction: all from the records, and other records have other verdicts."""

import json
import math

import numpy as np
import pytest
from measured import images, narrow, reading, reproduction, theory
from measured.claims import AGREES, IN_PART, NOT, OPEN, judged, mean_and_error, numbers, seen, together


@pytest.mark.parametrize(
    ("facts", "verdict"),
    [([True, True], AGREES), ([True, False], IN_PART), ([False, False], NOT), ([], OPEN)],
)
def test_a_claim_is_seen_in_all_cases_in_some_or_in_none(facts, verdict):
    assert seen(iter(facts)) == verdict


@pytest.mark.parametrize(
    ("difference", "error", "verdict"),
    [(2.1, 1.0, AGREES), (2.0, 1.0, OPEN), (-2.0, 1.0, OPEN), (-2.1, 1.0, NOT), (50.0, math.inf, OPEN)],
)
def test_two_standard_errors_decide(difference, error, verdict):
    assert judged(difference, error) == verdict


def test_what_is_no_number_is_no_evidence():
    with pytest.raises(ValueError, match="loss is NaN"):
        numbers([{"loss": math.nan}])


def test_one_seed_has_no_error():
    assert mean_and_error([0.5], 10_000) == (50.0, math.inf)
    assert mean_and_error([0.5, 0.5], 10_000) == (50.0, 0.5)


@pytest.mark.parametrize(
    ("lost", "errors", "verdict"),
    [
        ((1.9, 9.0), (1.0, 1.0), AGREES),
        ((2.1, 9.0), (1.0, 1.0), IN_PART),  # less than SGD, but not close
        ((-3.0, 9.0), (1.0, 1.0), AGREES),  # the narrow net is better
        ((1.9, 4.0), (1.0, 1.0), OPEN),
        ((9.0, 2.0), (1.0, 1.0), NOT),
        ((2.1, 9.0), (1.0, math.inf), OPEN),
        ((2.1, 9.0), (math.inf, 1.0), OPEN),
    ],
)
def test_the_narrow_net_comes_close_where_the_regime_loses_little_and_sgd_more(lost, errors, verdict):
    assert images.comes_close(lost, errors) == verdict


@pytest.mark.parametrize(
    ("verdicts", "verdict"),
    [
        ([AGREES, AGREES], AGREES),
        ([AGREES, OPEN], IN_PART),
        ([AGREES, NOT, OPEN], IN_PART),
        ([NOT, OPEN], OPEN),
        ([NOT, NOT], NOT),
    ],
)
def test_verdicts_on_cases_are_one_on_the_claim(verdicts, verdict):
    assert together(verdicts) == verdict


def shares(values):
    """Return cells of two widths and some seeds, with these shares at the start."""
    return [
        {
            "depth": 1,
            "width": width,
            "seed": seed,
            **{key: {"value": value, "baseline": 1.0} for key in ("initial", "trained")},
        }
        for seed, of_seed in enumerate(values)
        for width, value in zip((4, 8), of_seed, strict=True)
    ]


@pytest.mark.parametrize(
    ("values", "verdict", "said"),
    [
        ([(0.9, 0.4), (0.9, 0.5), (0.8, 0.4)], AGREES, "a rise in 0 of 1"),
        ([(0.4, 0.9), (0.5, 0.9), (0.4, 0.8)], NOT, "a rise in 1 of 1"),
        ([(0.9, 0.4), (0.4, 0.5), (0.4, 0.3)], OPEN, "a rise in 0 of 1"),
        ([(0.9, 0.4)], OPEN, "(one seed)"),
    ],
)
def test_seeds_decide_whether_j_falls(values, verdict, said):
    found = theory.change(shares(values), "width", "initial")
    assert found.verdict == verdict
    assert said in str(found)


def test_the_error_is_student_s():
    """Twice the error is half the 95 % interval of the mean of three: 4.303 standard errors, not two."""
    found = theory.change(shares([(0.5, 0.4), (0.5, 0.3), (0.5, 0.2)]), "width", "initial")
    assert found.mean == pytest.approx(-0.2)
    assert 2 * found.error == pytest.approx(4.303 * 0.1 / math.sqrt(3), rel=1e-3)


def test_noise_is_open():
    rng = np.random.default_rng(0)
    found = [theory.change(shares(rng.normal(size=(3, 2))), "width", "initial").verdict for _ in range(200)]
    assert found.count(OPEN) >= 180  # of 200, one in twenty decided


@pytest.fixture
def records(monkeypatch, tmp_path):
    """Return a function that replaces the cells of a record, all others being as they are."""
    for path in reading.FIGURES.glob("*.json"):
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.setattr(reading, "FIGURES", tmp_path)

    def replace(name, cells, **settings):
        content = reading.whole_record(name)
        (tmp_path / f"{name}.json").unlink()
        content["settings"].update(settings)
        (tmp_path / f"{name}.json").write_text(
            json.dumps({**content, "cells": list(map(cells, content["cells"]))})
        )

    return replace


def verdict(part, beginning):
    """Return the verdict on the one claim that begins so."""
    [found] = [claim.verdict for claim in part() if claim.claim.startswith(beginning)]
    return found


def where(change, **wanted):
    """Return a function that changes the cells with these fields."""
    return lambda cell: {**cell, **change} if wanted.items() <= cell.items() else cell


KKT = {"method": "KKT solver", "net": "pairwise"}
WORSE = [
    (narrow.figure4, "Figure 4 a", "narrow_fig4", where({"loss": 5.0}, **KKT, width=20, radius=0.1), IN_PART),
    (narrow.figure4, "Figure 4 a", "narrow_fig4_kappa1", where({"loss": 1.01}, **KKT, width=40), IN_PART),
    (
        narrow.figure4,
        "Projected",
        "narrow_fig4",
        where({"loss": 1e-9}, net="pairwise", method="PGD"),
        IN_PART,
    ),
    (narrow.figure4, "Figure 4 b", "narrow_fig4", where({"sigma_min": 1e-9}, **KKT, width=20), IN_PART),
    (
        narrow.figure4,
        "Figure 4 c: regular",
        "narrow_fig4",
        where({"loss": 9.0}, net="standard", radius=1000.0),
        AGREES,
    ),
    (narrow.figure4, "Figure 4 c: the standard", "narrow_fig4", where({"loss": 1e-9}, net="standard"), NOT),
    (narrow.figure4, "Figure 4 d", "narrow_fig4", where({"sigma_min": 0.0}, width=20), IN_PART),
    (narrow.theorems, "Theorem 1", "narrow_theorem1", where({"holds": False}, n=100), IN_PART),
    (narrow.theorems, "Section 6", "deep_theorem1", where({"proven": True}), AGREES),
    (narrow.theorems, "Section 6", "deep_theorem1", where({"proven": False}), NOT),
    (narrow.theorems, "Theorem 2", "narrow_theorem2_digits", where({"loss": 1.0}, width=12), IN_PART),
    (narrow.theorems, "Mirrored", "narrow_ablation", where({"loss": 9.0}, mirrored=True), NOT),
    (narrow.theorems, "Mirrored", "narrow_ablation", where({"loss": 1e-9}), NOT),
    (narrow.theorems, "Mirrored", "narrow_ablation", lambda r: low_with_all_three(r), AGREES),
    (images.memorized, "Appendix H.6", "narrow_random_labels", where({"all_at": 7}), AGREES),
    (images.memorized, "Appendix H.6", "narrow_random_labels", where({"all_at": None}), NOT),
    (images.memorized, "Beyond", "narrow_all_images", where({"outcome": "no"}, samples=50_000), NOT),
    (
        images.accuracies,
        "Appendix H, mnist",
        "narrow_images_mnist",
        where({"test_accuracy": [0.86] * 3}, radius=None, width=8),
        AGREES,
    ),
    (
        images.accuracies,
        "Appendix H, mnist",
        "narrow_images_mnist",
        where({"test_accuracy": [0.99] * 3}, radius=None),
        NOT,
    ),
    (
        images.accuracies,
        "Appendix H, mnist",
        "narrow_images_mnist",
        where({"test_accuracy": [0.9]}, width=8),
        OPEN,
    ),
    (
        images.figure5,
        "Figure 5, restricted imagenet: at the full",
        "narrow_fig5_restricted_imagenet",
        where({"test_accuracy": 0.1}, radius=None, width=128),
        AGREES,
    ),
    (
        theory.pyramidal,
        "Theorem 3.2",
        "pyramidal_convergence",
        lambda r: broken(r, "digits, N=20, L=2"),
        IN_PART,
    ),
    (theory.pyramidal, "Theorem 3.2", "pyramidal_convergence", lambda r: idle(r), OPEN),
    (
        theory.pyramidal,
        "Section 3.1",
        "pyramidal_convergence",
        where({"widths": [20, 4, 1]}, widths=[40, 4, 1]),
        AGREES,
    ),
    (theory.pyramidal, "Section 3.2", "pyramidal_lecun", where({"log10_width": 4.0}), NOT),
    (theory.pyramidal, "Section 3.2", "pyramidal_lecun", lambda r: held(r), AGREES),
    (theory.pyramidal, "Theorem 3.3", "pyramidal_lambda_star", where({"value": 1e-4}, inputs=30), IN_PART),
    (theory.depth_width, "Theorem 1", "depth_width_theorem2", where({"gap": 9.0}, width=6), IN_PART),
    (theory.depth_width, "Theorem 2", "depth_width_theorem2", where({"within": False}, depth=3), IN_PART),
    (
        theory.depth_width,
        "Proposition 2",
        "depth_width_theorem2",
        where({"exceeded": 0.11}, width=19),
        IN_PART,
    ),
    (
        theory.pyramidal,
        "Lemma 3.4",
        "pyramidal_lambda_star",
        where({"over_lemma": 0.9}, kind="khatri_rao"),
        NOT,
    ),
]


def broken(record, case):
    """Break an invariant in a case."""
    paper = {**record["paper"], "broken_invariant": "step 3"}
    return {**record, "paper": paper} if record["case"] == case else record


def idle(record):
    """Let the bound hardly fall."""
    return {**record, "paper": {**record["paper"], "bound_falls_by": 1.01}}


def held(record):
    """Let the conditions hold at every width."""
    return {**record, "measured": [{**m, "holds": True} for m in record["measured"]]}


def low_with_all_three(record):
    """Let the loss be low with the start, the head and a ball, and only then."""
    return {**record, "loss": 1e-9 if record["mirrored"] and record["pairwise"] else 9.0}


def risen(record, **place):
    """Lift J at a width or depth, by more than its errors."""
    lifted = {**record["trained"], "value": 5 * record["trained"]["baseline"]}
    return {**record, "trained": lifted} if place.items() <= record.items() else record


@pytest.mark.parametrize(("part", "beginning", "name", "cells", "expected"), WORSE)
def test_other_records_have_another_verdict(part, beginning, name, cells, expected, records):
    before = verdict(part, beginning)
    records(name, lambda cell: cell)
    assert verdict(part, beginning) == before != expected
    records(name, cells)
    assert verdict(part, beginning) == expected


def falling(record):
    """Let J fall with depth, width and training."""
    value = record["initial"]["baseline"] / (record["depth"] * record["width"])
    return {
        **record,
        **{when: {**record[when], "value": value / over} for when, over in (("initial", 1), ("trained", 2))},
    }


@pytest.mark.parametrize(
    ("beginning", "rising"),
    [
        ("width", lambda r: risen(r, width=12)),
        ("depth", lambda r: risen(r, depth=5)),
        ("training", lambda r: risen(r, depth=2)),
    ],
)
def test_figure_1_agrees_where_j_falls_on_every_data_set_and_in_part_where_it_rises_on_one(
    beginning, rising, records
):
    for name in theory.DATASETS:
        records(f"depth_width_fig1_{name}", falling)
    assert verdict(theory.figure1, f"Figure 1: J decreases with {beginning}") == AGREES
    records("depth_width_fig1_svhn", rising)
    assert verdict(theory.figure1, f"Figure 1: J decreases with {beginning}") == IN_PART


@pytest.mark.parametrize(("loss", "expected"), [(0.99, AGREES), (1.01, IN_PART)])
def test_a_loss_is_low_below_one_in_a_hundred(loss, expected, records):
    records("narrow_fig4", where({"loss": loss}, **KKT, width=20))  # n = 200: ½‖y‖² is 100
    assert verdict(narrow.figure4, "Figure 4 a") == expected


def test_instances_below_the_width_that_is_needed_are_counted_apart(records):
    records("narrow_theorem1", lambda r: {**r, "holds": r["width"] < r["width_needed"]})
    claim = narrow.theorem1()
    assert claim.verdict == NOT
    assert claim.ours.startswith("0 of 24 Gaussian instances")
    assert claim.ours.endswith("of 4 with m < 2n/d 4")


def test_a_data_set_with_a_record_is_told(records, tmp_path):
    before = narrow.theorem2()
    content = {**reading.whole_record("narrow_theorem2_digits")}
    content["settings"] = {**content["settings"], "dataset": "letters"}
    content["cells"] = [{**r, "loss": 1.0} for r in content["cells"]]
    (tmp_path / "narrow_theorem2_letters.json").write_text(json.dumps(content))
    after = narrow.theorem2()
    assert "narrow_theorem2_letters" in set(after.records) - set(before.records)
    assert "letters: 1 at most at 16 KKT points of 16 runs" in after.ours
    assert (before.verdict, after.verdict) == (AGREES, IN_PART)


def test_what_is_no_kkt_point_is_no_case_of_theorem_2(records):
    records("narrow_theorem2_digits", where({"loss": 1.0, "residual": 1e-3}, width=12))
    claim = narrow.theorem2()
    assert claim.verdict == AGREES
    assert "at 8 KKT points of 16 runs" in claim.ours


@pytest.mark.parametrize("beginning", ["width", "depth", "training"])
def test_one_seed_leaves_figure_1_open(beginning, monkeypatch):
    one = {
        name: [r for r in reading.figure(f"depth_width_fig1_{name}") if r["seed"] == 0]
        for name in theory.DATASETS
    }
    monkeypatch.setattr(theory, "figure", lambda name: one[name.removeprefix("depth_width_fig1_")])
    [claim] = [c for c in theory.figure1() if c.claim == f"Figure 1: J decreases with {beginning}"]
    assert claim.verdict == OPEN
    assert claim.ours.count("(one seed)") == (4 if beginning == "training" else 8)


def test_one_seed_leaves_figure_5_open(monkeypatch):
    content = reading.whole_record("narrow_fig5_restricted_imagenet")
    one = {**content, "cells": [r for r in content["cells"] if r["seed"] == 0]}
    monkeypatch.setattr(images, "whole_record", lambda _: one)
    assert [claim.verdict for claim in images.last_stages("restricted_imagenet")] == [OPEN, OPEN]


def test_every_claim_has_a_record_that_would_change_its_verdict():
    claims = {claim.claim for parts in reproduction.PAPERS.values() for part in parts for claim in part()}
    beginnings = (*(row[1] for row in WORSE), "Figure 1: J decreases with")
    others = {claim for claim in claims if not claim.startswith(beginnings)}
    assert {claim.split(": ")[0] for claim in others} == {
        "With κ = 1 the output weights never touch the boundary of their cone",  # mathematics
        "Appendix H, cifar10, 10,000 training images",  # other data sets of the same claims
        "Appendix H, cifar10, 48,000 training images",
        "Appendix H, cifar100 subset, 4,000 training images",
        "Figure 5, cifar10",
        "Figure 5, restricted imagenet",
    }
