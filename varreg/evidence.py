"""What the recorded studies measured of the penalty, in the few numbers that advice is given by.

All are of the weight that sets itself, in a small convolutional network at 28 pixels, without
augmentation unless said. They stand here once; a test computes each again from the recorded runs.
"""

from __future__ import annotations

from typing import NamedTuple

#: A change in test cross-entropy, in nats, that the studies call negligible.
NEGLIGIBLE = 0.01
#: The ``rho`` that validation chose on BreastMNIST, and that every other study took over.
STRENGTH = 0.027
#: The weight of ``head_weighted_variance`` that validation chose there.
HEAD_WEIGHT = 0.32


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
    """A data set, or a share of one.

    Attributes:
        data: Its name.
        images: How many it trains on.
        cross_entropy: What the penalty alone changed in test cross-entropy.
        auroc: The same in AUROC.
        augmentation: What zoom and shift alone changed in test cross-entropy.
        feature_l2: What feature L2 alone changed in it.
        beside: What the penalty changed in it on top of zoom and shift; ``None`` where it was not
            measured.
    """

    data: str
    images: int
    cross_entropy: Gain
    auroc: Gain
    augmentation: Gain
    feature_l2: Gain
    beside: Gain | None = None


class Network(NamedTuple):
    """Another network, on BreastMNIST, at the strengths that the small one chose.

    Attributes:
        name: What it is.
        self_setting: What the penalty changed in test cross-entropy.
        head_weighted: What it changed weighted by the head, with :data:`HEAD_WEIGHT`.
    """

    name: str
    self_setting: Gain
    head_weighted: Gain


EVIDENCE = (
    Evidence(
        "BreastMNIST",
        546,
        cross_entropy=Gain(-0.0462, -0.0517, -0.0407, 20),
        auroc=Gain(0.0303, 0.0256, 0.035, 20),
        augmentation=Gain(-0.0191, -0.0246, -0.0135, 20),
        feature_l2=Gain(-0.0548, -0.0625, -0.047, 20),
        beside=Gain(-0.0078, -0.0126, -0.0029, 10),
    ),
    Evidence(
        "PneumoniaMNIST",
        236,
        cross_entropy=Gain(-0.0654, -0.1203, -0.0105, 10),
        auroc=Gain(0.0144, 0.0093, 0.0196, 10),
        augmentation=Gain(-0.1742, -0.2516, -0.0969, 10),
        feature_l2=Gain(-0.2207, -0.2816, -0.1598, 10),
    ),
    Evidence(
        "PneumoniaMNIST",
        472,
        cross_entropy=Gain(-0.1104, -0.151, -0.0699, 10),
        auroc=Gain(0.0148, 0.0104, 0.0192, 10),
        augmentation=Gain(-0.245, -0.2977, -0.1924, 10),
        feature_l2=Gain(-0.1747, -0.2234, -0.1259, 10),
    ),
    Evidence(
        "PneumoniaMNIST",
        1178,
        cross_entropy=Gain(-0.1014, -0.1427, -0.0601, 10),
        auroc=Gain(0.0155, 0.0122, 0.0188, 10),
        augmentation=Gain(-0.2213, -0.2605, -0.1821, 10),
        feature_l2=Gain(-0.1132, -0.1534, -0.0729, 10),
    ),
    Evidence(
        "PneumoniaMNIST",
        2354,
        cross_entropy=Gain(-0.1189, -0.1596, -0.0782, 10),
        auroc=Gain(0.0129, 0.0106, 0.0152, 10),
        augmentation=Gain(-0.241, -0.2999, -0.182, 10),
        feature_l2=Gain(-0.1307, -0.179, -0.0825, 10),
    ),
    Evidence(
        "PneumoniaMNIST",
        4708,
        cross_entropy=Gain(-0.1085, -0.1402, -0.0769, 10),
        auroc=Gain(0.011, 0.0096, 0.0125, 10),
        augmentation=Gain(-0.2316, -0.2649, -0.1982, 10),
        feature_l2=Gain(-0.1099, -0.1492, -0.0706, 10),
        beside=Gain(-0.0446, -0.0725, -0.0166, 10),
    ),
    Evidence(
        "HAM10000",
        404,
        cross_entropy=Gain(-0.0418, -0.0601, -0.0235, 10),
        auroc=Gain(0.0243, 0.0181, 0.0305, 10),
        augmentation=Gain(0.003, -0.0147, 0.0206, 10),
        feature_l2=Gain(-0.0409, -0.0517, -0.0301, 10),
    ),
    Evidence(
        "HAM10000",
        805,
        cross_entropy=Gain(-0.0784, -0.0934, -0.0634, 10),
        auroc=Gain(0.0302, 0.025, 0.0354, 10),
        augmentation=Gain(-0.0354, -0.0529, -0.018, 10),
        feature_l2=Gain(-0.0655, -0.0812, -0.0498, 10),
    ),
    Evidence(
        "HAM10000",
        2008,
        cross_entropy=Gain(-0.0813, -0.0897, -0.0729, 10),
        auroc=Gain(0.0199, 0.0159, 0.0239, 10),
        augmentation=Gain(-0.041, -0.0522, -0.0298, 10),
        feature_l2=Gain(-0.0552, -0.0655, -0.0449, 10),
    ),
    Evidence(
        "HAM10000",
        4013,
        cross_entropy=Gain(-0.0599, -0.0703, -0.0495, 10),
        auroc=Gain(0.0098, 0.0078, 0.0118, 10),
        augmentation=Gain(-0.0332, -0.0435, -0.023, 10),
        feature_l2=Gain(-0.0461, -0.0581, -0.034, 10),
    ),
    Evidence(
        "HAM10000",
        8022,
        cross_entropy=Gain(-0.0115, -0.0187, -0.0043, 10),
        auroc=Gain(-0.0012, -0.0036, 0.0012, 10),
        augmentation=Gain(-0.0161, -0.0231, -0.0091, 10),
        feature_l2=Gain(-0.0278, -0.0355, -0.0201, 10),
        beside=Gain(0.0112, 0.001, 0.0214, 10),
    ),
)

#: With batch normalization.
NORMALIZED = (
    Network(
        "a small network with batch normalization",
        self_setting=Gain(-0.0171, -0.0334, -0.0008, 10),
        head_weighted=Gain(-0.0355, -0.0516, -0.0195, 10),
    ),
    Network(
        "a small residual network",
        self_setting=Gain(-0.01, -0.0293, 0.0092, 10),
        head_weighted=Gain(-0.0169, -0.038, 0.0043, 10),
    ),
)

#: BreastMNIST with four times as many epochs: what the penalty changed in test cross-entropy.
LONGER = Gain(-0.0277, -0.0574, 0.0021, 10)

#: Where it did harm.
PAPER = Network(
    "the paper's network",
    self_setting=Gain(0.0251, 0.0099, 0.0402, 10),
    head_weighted=Gain(0.0051, -0.0017, 0.0119, 10),
)
