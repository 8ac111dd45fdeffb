"""`DistbpClassifier` and `DistbpRegressor`: networks as estimators of scikit-learn (the extra `sklearn`)."""

from distbp.core.imports import missing

try:
    from sklearn.utils.validation import validate_data  # noqa: F401 - which scikit-learn 1.6 brought
except ImportError as error:
    raise ImportError(missing("an estimator", "scikit-learn 1.6 or later", "distbp[sklearn]")) from error

from distbp.sklearn.estimators import DistbpClassifier as DistbpClassifier
from distbp.sklearn.estimators import DistbpRegressor as DistbpRegressor

__all__ = ["DistbpClassifier", "DistbpRegressor"]
