"""What a model said about each image, as text that a table can hold."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

STORED = np.dtype("<f2")
LARGEST = float(np.finfo(STORED).max)


@dataclass(frozen=True, eq=False)
class Predictions:
    """The logits of the images of one split.

    Attributes:
        logits: float32 ``(N, n_outputs)``, as exact as float16 holds them: three digits.
        images: Their ``N`` names, in the same order: those of the files, or their numbers where
            the data set has no names.

    Raises:
        ValueError: If there is not one name an image.

    Example:
        >>> said = Predictions(np.array([[0.1], [-2.0]]), ["first", "second"])
        >>> Predictions.from_text(said.to_text(), 1, said.images).logits.tolist()
        [[0.0999755859375], [-2.0]]
    """

    logits: np.ndarray
    images: Sequence[str]

    def __post_init__(self) -> None:
        if self.logits.ndim != 2 or len(self.logits) != len(self.images):
            raise ValueError(
                f"logits have shape {self.logits.shape} for {len(self.images)} images; they must "
                f"be ({len(self.images)}, n_outputs)"
            )

    def to_text(self) -> str:
        """The logits in float16, compressed, in letters; what float16 cannot hold is clipped."""
        stored = np.clip(self.logits, -LARGEST, LARGEST).astype(STORED)
        return base64.b64encode(zlib.compress(stored.tobytes(), 9)).decode()

    @classmethod
    def from_text(cls, text: str, n_outputs: int, images: Sequence[str]) -> Predictions:
        """Read what :meth:`to_text` wrote.

        Raises:
            ValueError: If it is something else, or of other images.
        """
        try:
            stored = zlib.decompress(base64.b64decode(text, validate=True))
            logits = np.frombuffer(stored, STORED).astype(np.float32).reshape(-1, n_outputs)
        except (binascii.Error, zlib.error, ValueError) as error:
            raise ValueError(f"the logits cannot be read: {error}") from error
        return cls(logits, images)
