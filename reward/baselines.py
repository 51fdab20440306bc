"""What a reward model must beat: length alone, and a bag of words."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from reward.data import Comparison


def longer_wins(comparisons: Sequence[Comparison]) -> npt.NDArray[np.float64]:
    """Return 1 where the chosen answer has more words than the rejected one, 0.5 where as many, else 0."""
    lengths = [(len(c.chosen.split()), len(c.rejected.split())) for c in comparisons]
    return np.array([0.5 + 0.5 * np.sign(chosen - rejected) for chosen, rejected in lengths])


def bag_of_words(train: Sequence[Comparison], test: Sequence[Comparison]) -> npt.NDArray[np.float64]:
    """Return for each test comparison 1 where a linear Bradley-Terry model over word counts prefers the chosen answer.

    The features of a pair are differences of log(1 + count) over the words of the answers seen at least twice in
    training; both orientations of each training pair are shown, so that the model has no side.
    """
    vectorizer = CountVectorizer(min_df=2)
    counts = vectorizer.fit_transform([text for c in train for text in (c.chosen, c.rejected)]).log1p()
    differences = counts[0::2] - counts[1::2]
    features = np.concatenate([differences.toarray(), -differences.toarray()])
    labels = np.concatenate([np.ones(len(train)), np.zeros(len(train))])
    model = LogisticRegression(C=0.1, fit_intercept=False, max_iter=1000).fit(features, labels)
    chosen = vectorizer.transform([c.chosen for c in test]).log1p()
    rejected = vectorizer.transform([c.rejected for c in test]).log1p()
    margins = model.decision_function((chosen - rejected).toarray())
    return np.where(margins == 0, 0.5, margins > 0).astype(np.float64)
