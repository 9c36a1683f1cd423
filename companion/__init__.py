"""The companion, for what exists only for this book; nothing that another project could want.

What is run (``studies``, ``probes``), what was published (``published``), the claims and their
verdicts (``claims``, ``rules``, ``verdicts``), and the calculations, tables and figures of the
pages. It is imported from a checkout and is not part of the package that pip installs.
"""

from varreg import endings  # noqa: F401, I001  first: a stop during the imports ends quietly

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def stated(name: str) -> dict[str, Any]:
    """Read what stands in a TOML file of this folder, such as ``claims``."""
    return tomllib.loads((files("companion") / f"{name}.toml").read_text("utf-8"))
