"""What the recorded studies measured of the penalty, in the few numbers that advice is given by.

All are of a small convolutional network at 28 pixels, without augmentation unless said. They stand
here once; a test computes each again from the recorded runs.
"""

from __future__ import annotations

from typing import NamedTuple

#: A change in test cross-entropy, in nats, that the studies call negligible.
NEGLIGIBLE = 0.01


class Gain(NamedTuple):
    """A paired difference of a metric over seeds, with its 95 % interval.

    Attributes:
        mean: Negative is better for a cross-entropy, positive for an AUROC.
        low: Lower end.
        high: Upper end.
        seeds: Pairs.
    """

    mean: float
    low: float
    high: float
    seeds: int

    def __str__(self) -> str:
        return f"{self.mean:+.3f} ({self.low:+.3f} to {self.high:+.3f}, {self.seeds} seeds)"


class Evidence(NamedTuple):
    """One data set.

    Attributes:
        data: Its name.
        images: How many it trains on.
        method: How the weight of the penalty was set: ``"self_setting"`` or ``"tuned"``.
        strength: What validation chose, for HAM10000 on BreastMNIST: ``rho``, or the weight
            itself.
        cross_entropy: What the penalty alone changed in test cross-entropy.
        auroc: The same in AUROC.
        augmentation: What zoom and shift alone changed in test cross-entropy.
        beside: What the penalty changed in test cross-entropy on top of them, with a strength that
            was chosen for that; ``None`` where it was not measured.
        feature_l2: What feature L2 alone changed in test cross-entropy, or ``None``.
    """

    data: str
    images: int
    method: str
    strength: float
    cross_entropy: Gain
    auroc: Gain
    augmentation: Gain
    beside: Gain | None = None
    feature_l2: Gain | None = None


EVIDENCE = (
    Evidence(
        "BreastMNIST",
        546,
        "self_setting",
        0.027,
        cross_entropy=Gain(-0.0462, -0.0517, -0.0407, 20),
        auroc=Gain(0.0303, 0.0256, 0.035, 20),
        augmentation=Gain(-0.0191, -0.0246, -0.0135, 20),
        beside=Gain(-0.0032, -0.005, -0.0013, 20),
        feature_l2=Gain(-0.0548, -0.0625, -0.047, 20),
    ),
    Evidence(
        "a quarter of HAM10000",
        2008,
        "self_setting",
        0.027,
        cross_entropy=Gain(-0.0813, -0.0897, -0.0729, 10),
        auroc=Gain(0.0199, 0.0159, 0.0239, 10),
        augmentation=Gain(-0.041, -0.0522, -0.0298, 10),
        feature_l2=Gain(-0.0552, -0.0655, -0.0449, 10),
    ),
    Evidence(
        "PneumoniaMNIST",
        4708,
        "tuned",
        0.1,
        cross_entropy=Gain(-0.0377, -0.0655, -0.0099, 20),
        auroc=Gain(0.0041, 0.0034, 0.0047, 20),
        augmentation=Gain(-0.2096, -0.2418, -0.1774, 20),
    ),
)
