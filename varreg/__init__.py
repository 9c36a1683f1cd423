"""The method, for what another project imports into its own training code.

It needs PyTorch and nothing else. What trains, measures and records is :mod:`varreg.lab`.

>>> import torch, varreg
>>> criterion = varreg.VariancePenalizedLoss("binary", variance_weight=1.0)
>>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
>>> tap = varreg.FeatureTap(model)
>>> logits = model(torch.zeros(6, 4))
>>> parts = criterion(logits, torch.ones(6), tap.take())
>>> parts.total.backward()
"""

from varreg import endings  # noqa: F401  first: a stop while PyTorch is imported ends quietly
from varreg.advice import Advice, recommend
from varreg.checks import NonFiniteFeaturesError, NotATensorError, SmallBatchError
from varreg.features import FeatureTap
from varreg.loss import (
    PUBLISHED,
    LossParts,
    PenalizedLoss,
    PenalizedParts,
    VariancePenalizedLoss,
    split_features,
)
from varreg.variance import feature_variance, per_channel

__version__ = "1.0.0"

__all__ = [
    "PUBLISHED",
    "Advice",
    "FeatureTap",
    "LossParts",
    "NonFiniteFeaturesError",
    "NotATensorError",
    "PenalizedLoss",
    "PenalizedParts",
    "SmallBatchError",
    "VariancePenalizedLoss",
    "__version__",
    "feature_variance",
    "per_channel",
    "recommend",
    "split_features",
]
