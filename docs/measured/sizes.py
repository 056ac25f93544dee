"""How large n can be: by tiles on one machine, over devices by compilation."""

from __future__ import annotations

from measured.reading import Row, bench, figure, result, the, whole


def sizes() -> list[Row]:
    """Large n."""
    alone, (tiles, whole_matrix, packed) = result("sigma_min_sizes"), result("tiles")
    eight = the(result("device_sizes"), rows=100_000, target="8 H100")
    rows = " / ".join(whole(r["rows"]) for r in alone)
    assert all(r["status"] == "certified" for r in alone)
    assert whole_matrix["crashed"]
    images = [
        r for r in figure("narrow_all_images") if r.get("samples") == 10_000 and r["outcome"] != "skipped"
    ]
    return [
        Row(
            f"certified σ_min of {rows} samples, d=3072, m=66, in a process of its own, first call",
            " / ".join(f"{r['seconds']:.0f} s" for r in alone)
            + "; "
            + " / ".join(f"{r['peak_gb']:.1f} GB" for r in alone),
            bench("tiles", "--rows " + " ".join(str(r["rows"]) for r in alone)),
        ),
        Row(
            "`memorize` and its proof, 10,000 CIFAR-10 images with random labels, 24 neurons, ε = 0.1",
            f"{sum(r['seconds'] for r in images):.0f} s, {max(r['peak_gb'] for r in images):.1f} GB",
            "`python -m experiments.narrow_all_images --samples 10000 --raw-dir DIR`",
        ),
        Row(
            f"Cholesky factor by tiles, n = {whole(tiles['rows'])}: of the speed of a product / memory",
            f"{tiles['share_of_product']:.2f}, {tiles['seconds']:.1f} s / {tiles['bytes'] / 1e9:.2f} GB",
            bench("tiles"),
        ),
        Row(
            "the same by LAPACK's `dpftrf`, packed / by `dpotrf`, whole (SciPy's)",
            f"{packed['share_of_product']:.2f}, {packed['seconds']:.1f} s, {packed['bytes'] / 1e9:.2f} GB / crashes",
            bench("tiles"),
        ),
        Row(
            "certified σ_min of 100,000 samples over 8 H100: memory of each, by compilation",
            f"{eight['largest'] / 1e9:.1f} GB; {eight['planned'] / 1e9:.1f} GB are planned",
            bench("device_sizes"),
        ),
    ]
