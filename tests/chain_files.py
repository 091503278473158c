"""Chains of known posteriors, written as samplers write them."""

import numpy as np
from anesthetic.examples.perfect_ns import gaussian
from anesthetic.utils import temporary_seed

NAMES = ["x", "y"]
COVARIANCE = np.array([[1.0, 0.6], [0.6, 2.0]])


def draws(rng, n, mean=(0.0, 0.0), scale=1.0):
    return rng.multivariate_normal(mean, scale**2 * COVARIANCE, n)


def write_names(root, names=NAMES):
    root.with_name(root.name + ".paramnames").write_text("".join(f"{n}\t{n}_{{p}}\n" for n in names))


def write_polychord(root, x, logL, names=NAMES):
    """A perfect nested-sampling run as PolyChord writes it."""
    table = np.column_stack([x, logL])
    np.savetxt(root.with_name(root.name + "_dead-birth.txt"), table)
    if names:
        write_names(root, names)


def polychord_run(rng, tmp_path, name, names=NAMES, **kwargs):
    """A nested-sampling run over a uniform ball with a Gaussian likelihood, from anesthetic's own generator."""
    with temporary_seed(int(rng.integers(2**31))):
        ns = gaussian(200, ndims=2, **kwargs)
    columns = [c for c in ns.columns.get_level_values(0) if c not in ("logL", "logL_birth", "nlive")]
    x = ns[columns].to_numpy()
    root = tmp_path / name / "test"
    root.parent.mkdir()
    write_polychord(root, x, np.column_stack([ns.logL.to_numpy(), ns.logL_birth.to_numpy()]), names)
    return root
