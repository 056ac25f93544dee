"""Compute the references of the problem table: python tests/tools/make_problems.py (about two minutes).

σ_min and σ_max of the exact Jacobian in 140-digit arithmetic. The smallest eigenvalue of JJᵀ comes from inverse
iteration and Rayleigh quotients, and is confirmed by Sylvester's law: K − λ(1 − 10⁻⁵⁵)I has only positive pivots.
"""

import json

import mpmath as mp
from problems import PROBLEMS, REFERENCES

mp.mp.dps = 140
DERIVATIVES = {
    "tanh": lambda z: 1 / mp.cosh(z) ** 2,
    "softplus": lambda z: 1 / (1 + mp.exp(-z)),
    "sin": mp.cos,
}


def exact(array):
    return mp.matrix([[mp.mpf(float(entry)) for entry in row] for row in array])


def sensitivities(problem):
    """D, one row a (sample, output), and X with its rows repeated, exact to the working precision."""
    x, w, v = exact(problem.x), exact(problem.params["w"]), exact(problem.params["v"])
    z = x * w
    units, outputs, half = w.cols, v.cols, v.rows
    slope = z.apply(DERIVATIVES[problem.activation])
    signed = [[v[j % half, c] * (1 if j < half else -1) for j in range(units)] for c in range(outputs)]
    rows = [(i, c) for i in range(x.rows) for c in range(outputs)]
    d = mp.matrix([[signed[c][j] * slope[i, j] for j in range(units)] for i, c in rows])
    return d, mp.matrix([[x[i, a] for a in range(x.cols)] for i, _ in rows])


def gram(problem):
    d, x = sensitivities(problem)
    left, right = x * x.T, d * d.T
    return mp.matrix([[left[i, j] * right[i, j] for j in range(left.cols)] for i in range(left.rows)])


def pivots(k):
    """The pivots of LDLᵀ."""
    a, n = k.copy(), k.rows
    for j in range(n):
        if a[j, j] <= 0:
            return False
        for i in range(j + 1, n):
            factor = a[i, j] / a[j, j]
            for c in range(j + 1, i + 1):
                a[i, c] -= factor * a[c, j]
    return True


def smallest(k):
    u = mp.matrix([mp.mpf(1) / (i + 2) for i in range(k.rows)])
    inverse = k**-1
    for _ in range(200):
        u = inverse * u
        u /= mp.norm(u)
    value = (u.T * k * u)[0]
    for _ in range(6):
        try:
            u = mp.lu_solve(k - value * mp.eye(k.rows), u)
        except ZeroDivisionError:
            break
        u /= mp.norm(u)
        value = (u.T * k * u)[0]
    assert pivots(k - value * (1 - mp.mpf(10) ** -55) * mp.eye(k.rows))
    return mp.sqrt(value)


def largest(k):
    u = mp.matrix([1] * k.rows)
    for _ in range(400):
        u = k * u
        u /= mp.norm(u)
    return mp.sqrt((u.T * k * u)[0])


def main():
    table = {}
    for name, problem in PROBLEMS.items():
        k = gram(problem)
        deficient = problem.shape[0] > problem.shape[1] or name == "duplicate"
        sigma = mp.mpf(0) if deficient else smallest(k)
        table[name] = {"sigma_min": mp.nstr(sigma, 50), "sigma_max": mp.nstr(largest(k), 10)}
        print(
            name,
            table[name]["sigma_min"][:12],
            f"{float(mp.mpf(table[name]['sigma_max']) / max(sigma, mp.mpf(10) ** -400)):.1e}",
            flush=True,
        )
    REFERENCES.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
