"""σ_min, first calls, and what was tried against the library."""

from __future__ import annotations

from measured.reading import Record, Row, bench, percent, result, short, the, whole


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
            "their relative error is "
            f"{percent(matfree['relative_error'], 0)} and {percent(lobpcg['relative_error'], 0)}",
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
            "certified σ_min of a deep net, n=2000, d=100, widths (60, 60, 1), against the dense Jacobian with QR and "
            "SVD / with its Gram matrix",
            f"{operator['seconds']:.2f} s: {dense['times_the_operator']:.1f} × / "
            f"{gram['times_the_operator']:.1f} × faster",
            bench("deep_spectra"),
        ),
        Row(
            "σ_min of any function's Jacobian by `autodiff`, 475,200 weights, 10 samples, against vmap(grad) and "
            f"NumPy's SVD by hand ({by_hand['seconds']:.2f} s, no proof)",
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
            "random and hill-climbed problems against σ_min and every certificate, truth by formulas of their own in "
            "exact and 150-digit arithmetic: certified answers that missed it",
            f"{campaign['missed']} of {whole(campaign['certified'])} ({whole(campaign['problems'])} problems)",
            bench("adversary", "--problems 3000"),
        ),
        Row(
            "every kind of program, compiled for TPU v5e and for one, four and eight H100 on a machine without",
            f"{len(compiled)} programs, the longest "
            f"{max(r['compile_seconds'] for r in compiled):.0f} s (beside other work)",
            bench("aot") + " (after `make aot`)",
        ),
    ]
