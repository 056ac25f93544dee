"""stand-in"""

import numpy as np

from narrow_jax.certificates.narrow_nets import constants


def lipschitz(net, x, radius, outer=False):
    if len(net.sigmas) == 1 and not outer:
        return constants.lipschitz(net.v, constants.input_norm(np.asarray(x)), net.sigmas[0])
    best = 0.0
    for half in net.halves:
        a = np.asarray(x, float)
        S2 = net.sigmas[0].sup_second_derivative
        tau = net.sigmas[0].lipschitz
        c = np.zeros(len(a))
        h = np.zeros(len(a))
        r = radius
        for l, w in enumerate(half):
            om = np.linalg.norm(w, 2) + r
            alpha = np.linalg.norm(a, axis=1) + c * r
            b = np.sqrt(om**2 * c**2 + alpha**2)
            hh = om * h + 2 * c
            last = (hh, b)
            c, h = tau * b, tau * hh + S2 * b**2
            a = np.asarray(net.sigmas[l](a @ w))
        g = np.linalg.norm(net.v, 2) * tau * last[0] + S2 * np.linalg.norm(net.v, axis=1).max() * last[1] ** 2
        best = max(best, float(np.sqrt((g**2).sum())))
    return best * 1.0001
