"""The lab, for whatever trains, measures and records: it knows no paper and no book.

Data sets, models, augmentation, the training loop, metrics, runs, their ledger, sweeps over many of
them, and statistics. It needs the extra ``lab``; the method itself, ``varreg``, needs PyTorch only.
"""

from importlib.util import find_spec

#: What the extra ``lab`` brings, by the names that are imported.
NEEDS = (
    "filelock",
    "joblib",
    "medmnist",
    "monai",
    "numpy",
    "pandas",
    "PIL",
    "platformdirs",
    "pooch",
    "scipy",
    "sklearn",
    "tqdm",
)

if _missing := [name for name in NEEDS if find_spec(name) is None]:
    raise ImportError(
        f"varreg.lab needs {', '.join(_missing)}; install what is missing with "
        "pip install 'varreg[lab]'"
    )
