"""Estimators with the conventions of scikit-learn. Importing this needs the extra `sklearn`."""

from distbp.sklearn.estimators import DistbpClassifier as DistbpClassifier
from distbp.sklearn.estimators import DistbpRegressor as DistbpRegressor

__all__ = ["DistbpClassifier", "DistbpRegressor"]
