"""A linear classifier of words over preference pairs, by scikit-learn.

Run: python xtask/golden/bag_of_words.py
Makes crates/eval/tests/golden/bag_of_words.json.

A word's feature is log1p(count) in the chosen answer less the same in the rejected one. Every pair stands twice, once with the
sides swapped, and C is half, so that the objective is that of a model without labels: sum of -log sigmoid(w x) + |w|^2 / 2.
"""

import math
import random
from collections import Counter

import numpy as np
import sklearn
from sklearn.linear_model import LogisticRegression

from store import REPOSITORY, write_json

COMMON = "the a to of it is was and we you they for on with at".split()
KIND = "thank please happy glad sorry welcome".split()
CURT = "no whatever never wrong stop".split()


def answer(rng, kind):
    words = rng.choices(COMMON + (KIND * 2 + CURT if kind else KIND + CURT * 2), k=rng.randint(3, 14))
    return " ".join(word.title() if rng.random() < 0.2 else word for word in words) + rng.choice([".", "!", "", "..."])


def features(pair, words):
    chosen, rejected = (Counter(text.lower().replace(".", "").replace("!", "").split()) for text in pair)
    return [math.log1p(chosen[word]) - math.log1p(rejected[word]) for word in words]


if __name__ == "__main__":
    rng = random.Random(16)
    pairs = [(answer(rng, True), answer(rng, False)) for _ in range(72)]
    training, held_out = pairs[:60], pairs[60:]
    words = sorted({word.lower().strip(".!") for pair in training for text in pair for word in text.split()} - {""})
    x = np.array([features(pair, words) for pair in training])
    model = LogisticRegression(C=0.5, fit_intercept=False, tol=1e-13, max_iter=10000, solver="newton-cholesky")
    model.fit(np.vstack([x, -x]), np.repeat([1, 0], len(x)))
    weights = model.coef_[0]
    gradient = weights - (x.T @ (1 / (1 + np.exp(x @ weights))))
    assert np.abs(gradient).max() < 1e-9, np.abs(gradient).max()
    margins = np.array([features(pair, words) for pair in held_out]) @ weights
    content = dict(training=training, held_out=held_out, words=words, weights=weights.tolist(), margins=margins.tolist())
    write_json(REPOSITORY / "crates/eval/tests/golden/bag_of_words.json", content, digits=12, sklearn=sklearn.__version__)
    print(dict(zip(words, weights.round(3))), (margins > 0).mean())
