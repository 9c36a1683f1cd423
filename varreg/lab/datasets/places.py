"""Where data sets are looked for."""

from __future__ import annotations

import os
from pathlib import Path

from varreg.lab.datasets.cache import cache_dir
from varreg.lab.datasets.core import DatasetNotFoundError


def data_roots(root: str | Path | None = None) -> dict[str, Path]:
    """The folders to look into, in order: ``root``, ``$VARREG_DATA``, the cache folder.

    Args:
        root: a folder, or None.

    Returns:
        Each folder under the words that tell a reader which it is.

    Raises:
        DatasetNotFoundError: If ``root`` or ``$VARREG_DATA`` names something that is not a folder.
    """
    roots: dict[str, Path] = {}
    if root is not None:
        roots["the given root"] = Path(os.path.expanduser(root))
    if configured := os.environ.get("VARREG_DATA"):
        roots["VARREG_DATA"] = Path(os.path.expanduser(configured))
    for words, folder in roots.items():
        if not os.path.isdir(folder):  # unlike pathlib's methods, it does not raise
            raise DatasetNotFoundError(
                f"{words} is {folder}, which is not a folder; correct it or leave it out"
            )
    return roots | {"the cache folder": cache_dir()}
