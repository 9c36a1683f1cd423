"""Where the package lies, on what it runs, and which code it is: recorded with every number."""

from __future__ import annotations

import os
import platform
import subprocess
import warnings
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import torch

import varreg


def checkout() -> Path | None:
    """Root folder of the checkout that the package runs from; ``None`` where it is installed.

    Example:
        >>> root = checkout()
        >>> root is None or (root / "pyproject.toml").is_file()
        True
    """
    package = Path(varreg.__file__).resolve().parent
    project = package.parent / "pyproject.toml"
    # Beside an installed package, another project may have a file of that name.
    if project.is_file() and f'name = "{package.name}"' in project.read_text(encoding="utf-8"):
        return package.parent
    return None


@lru_cache(maxsize=1)
def commit() -> str:
    """Commit of the checkout that holds the package, with ``+`` if what is run was edited.

    Returns:
        ``""`` where the package is not in a checkout. The same where git cannot tell, with a
        warning: what is recorded from now on will not say which code made it.
    """
    root = checkout()
    if root is None or not (root / ".git").exists():
        return ""

    # The folder may belong to another user, as in a container. Its code runs already.
    ours = ["git", "-c", f"safe.directory={root}", "-C", str(root)]
    # Inside a hook, these name the repository that was committed to.
    redirects = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")
    environment = {name: value for name, value in os.environ.items() if name not in redirects}

    def git(*arguments: str) -> str:
        done = subprocess.run(
            [*ours, *arguments], capture_output=True, text=True, check=True, env=environment
        )
        return done.stdout.strip()

    try:
        edited = git("status", "--porcelain", "--", "varreg", "companion")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if edited else "")
    except (OSError, subprocess.CalledProcessError) as error:
        cause = getattr(error, "stderr", None) or str(error)
        warnings.warn(
            f"what is recorded now will not name its commit: in {root} git says "
            f"{cause.strip().splitlines()[0]!r}; install git, or give this user the folder",
            stacklevel=2,
        )
        return ""


def device_name(device: torch.device) -> str:
    """Name of the hardware that a run is recorded with."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return f"{name} CPU, {os.cpu_count()} cores"


def stamp(device: torch.device, seconds: float) -> dict[str, object]:
    """With what, on what and when something was measured, by the names in the ledger."""
    return {
        "version": varreg.__version__,
        "commit": commit(),
        "torch_version": torch.__version__,
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "seconds": round(seconds, 2),
        "recorded_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
