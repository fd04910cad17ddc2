"""Cohen's and Fleiss' kappa with 95 % intervals, from statsmodels and scikit-learn.

Run: python xtask/golden/agreement.py
Makes crates/eval/tests/golden/agreement.json.

statsmodels has no variance of Fleiss' kappa. Here it comes from the derivatives of kappa by the weight of each item (the
infinitesimal jackknife), taken numerically.
"""

import numpy as np
import sklearn
import statsmodels
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats import inter_rater

from store import REPOSITORY, write_json

# Fleiss, Levin and Paik 2003, Statistical Methods for Rates and Proportions, table 18.1 (n = 100).
DIAGNOSES = [[75, 1, 4], [5, 4, 1], [0, 0, 10]]
# Two readers of fifty proposals, the usual example of Cohen's kappa.
PROPOSALS = [[20, 5], [10, 15]]
# Fleiss 1971, table 1: 30 patients, six psychiatrists, five diagnoses.
PATIENTS = [
    [0, 0, 0, 6, 0], [0, 3, 0, 0, 3], [0, 1, 4, 0, 1], [0, 0, 0, 0, 6], [0, 3, 0, 3, 0], [2, 0, 4, 0, 0], [0, 0, 4, 0, 2],
    [2, 0, 3, 1, 0], [2, 0, 0, 4, 0], [0, 0, 0, 0, 6], [1, 0, 0, 5, 0], [1, 1, 0, 4, 0], [0, 3, 3, 0, 0], [1, 0, 0, 5, 0],
    [0, 2, 0, 3, 1], [0, 0, 5, 0, 1], [3, 0, 0, 1, 2], [5, 1, 0, 0, 0], [0, 2, 0, 4, 0], [1, 0, 2, 0, 3], [0, 0, 0, 0, 6],
    [0, 1, 0, 5, 0], [0, 2, 0, 1, 3], [2, 0, 0, 4, 0], [1, 0, 0, 4, 1], [0, 5, 0, 1, 0], [4, 0, 0, 0, 2], [0, 2, 0, 4, 0],
    [1, 0, 5, 0, 0], [0, 0, 0, 0, 6],
]
# The usual example of Fleiss' kappa: ten items, fourteen raters.
FOURTEEN = [
    [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1], [7, 7, 0, 0, 0], [3, 2, 6, 3, 0],
    [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
]
# `cac.raw4raters` of the R package irrCAC (Gwet): four raters, twelve items, some ratings missing.
MISSING = [
    [3, 0, 0, 0, 0], [0, 3, 1, 0, 0], [0, 0, 4, 0, 0], [0, 0, 4, 0, 0], [0, 4, 0, 0, 0], [1, 1, 1, 1, 0], [0, 0, 0, 4, 0],
    [3, 1, 0, 0, 0], [0, 4, 0, 0, 0], [0, 0, 0, 0, 3], [2, 0, 0, 0, 0], [0, 0, 1, 0, 0],
]


def cohen(case, table, published):
    found = inter_rater.cohens_kappa(np.array(table))
    pairs = [(a, b) for a, row in enumerate(table) for b, count in enumerate(row) for _ in range(count)]
    assert abs(cohen_kappa_score(*zip(*pairs)) - found.kappa) < 1e-12
    return dict(case=case, table=table, published=published, kappa=found.kappa, low=found.kappa_low, high=found.kappa_upp)


def weighted_kappa(counts, weights):
    raters = counts.sum(1)
    shares = (weights[:, None] * counts / raters[:, None]).sum(0) / weights.sum()
    twice = raters >= 2
    agree = (counts * (counts - 1)).sum(1)[twice] / (raters * (raters - 1))[twice]
    observed = (weights[twice] * agree).sum() / weights[twice].sum()
    expected = (shares**2).sum()
    return (observed - expected) / (1 - expected)


def fleiss(case, counts, published):
    table = np.array(counts, dtype=float)
    items = len(table)
    kappa = weighted_kappa(table, np.ones(items))
    if len(set(table.sum(1))) == 1:
        assert abs(kappa - inter_rater.fleiss_kappa(np.array(counts))) < 1e-12
    step = 1e-5
    derivatives = np.array([
        (weighted_kappa(table, 1 + step * row) - weighted_kappa(table, 1 - step * row)) / (2 * step) for row in np.eye(items)
    ])
    error = np.sqrt((derivatives**2).sum() * items / (items - 1))
    return dict(
        case=case, counts=counts, published=published, kappa=kappa,
        low=kappa - 1.959963984540054 * error, high=min(1.0, kappa + 1.959963984540054 * error), error=error,
    )


if __name__ == "__main__":
    content = dict(
        cohen=[cohen("diagnoses", DIAGNOSES, 0.676), cohen("proposals", PROPOSALS, 0.4)],
        fleiss=[fleiss("patients", PATIENTS, 0.430), fleiss("fourteen", FOURTEEN, 0.210), fleiss("missing", MISSING, 0.7612)],
    )
    path = REPOSITORY / "crates/eval/tests/golden/agreement.json"
    write_json(path, content, digits=12, sklearn=sklearn.__version__, statsmodels=statsmodels.__version__)
    for case in content["cohen"] + content["fleiss"]:
        print(case["case"], case["kappa"], case["low"], case["high"], case.get("error"))
