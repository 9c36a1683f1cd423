"""Tables in CSV files: every line is looked at on the way in, and a file is replaced as a whole."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

RESTORE = "Nothing was changed. Restore the file from version control"
# Thousands of logits in one field are more than the module expects.
csv.field_size_limit(2**31 - 1)

ADVICE = f"{RESTORE}, or delete that line: the run will be trained again"


class LedgerError(ValueError):
    """Raised when a ledger cannot be read or written without losing something."""


@dataclasses.dataclass(frozen=True)
class Table:
    """The text of a table, row by row.

    Attributes:
        path: Its file.
        header: Names of the columns.
        rows: As many texts a row as there are columns.
        lines: Last line of each row in the file.
    """

    path: Path
    header: list[str] = dataclasses.field(default_factory=list)
    rows: list[list[str]] = dataclasses.field(default_factory=list)
    lines: list[int] = dataclasses.field(default_factory=list)

    def column(self, name: str) -> list[str]:
        """The texts of a column."""
        at = self.header.index(name)
        return [row[at] for row in self.rows]

    def records(self) -> Iterator[dict[str, str]]:
        """The rows, each by the names of the columns."""
        return (dict(zip(self.header, row, strict=True)) for row in self.rows)

    def refusal(self, row: int, what: str) -> LedgerError:
        """The error that says what is wrong with a row."""
        if row >= len(self.lines):
            return LedgerError(f"{self.path}: the new row {what}. It was not recorded")
        return LedgerError(f"{self.path}, line {self.lines[row]} {what}. {ADVICE}")

    def grown(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
        """This table with more rows; ``header`` begins with the header that it has."""
        more = [""] * (len(header) - len(self.header))
        padded = [row + more for row in self.rows] if more else self.rows
        return Table(self.path, list(header), [*padded, *map(list, rows)], self.lines)


def read(path: Path) -> Table | None:
    """Read a table whose rows have a ``key``.

    A byte order mark and line ends of another system are understood; columns may stand in any
    order.

    Returns:
        The table; ``None`` if there is no such file.

    Raises:
        LedgerError: If the file cannot be read, is something else than a table, or has a line
            that is damaged; it says which, and what to do.
    """
    try:
        if not path.is_file():
            if path.is_symlink():
                raise LedgerError(f"{path} is a link to {os.readlink(path)}, where no file is")
            if path.exists():
                raise LedgerError(f"{path} is not a file; move away what stands in its place")
            return None
        data = path.read_bytes()
    except OSError as error:
        raise LedgerError(
            f"{path} cannot be read: {error.strerror or error}; let this user read it, or name "
            "another folder with results= or $VARREG_RESULTS"
        ) from error
    try:
        text = data.decode("utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""))
        found = [(reader.line_num, line) for line in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise LedgerError(f"{path} is not a table in UTF-8: {error}. {ADVICE}") from error
    if not found:
        raise LedgerError(
            f"{path} is empty. {RESTORE}, or delete it: its runs will be trained again"
        )
    if not text.endswith(("\n", "\r")):
        raise LedgerError(f"{path}, line {found[-1][0]} is cut short. {ADVICE}")
    _, header = found.pop(0)
    _check_header(path, header)
    table = Table(path, header, [line for _, line in found], [number for number, _ in found])
    key = header.index("key")
    for at, line in enumerate(table.rows):
        if len(line) != len(header):
            raise table.refusal(at, f"has {len(line)} fields where the header has {len(header)}")
        if line == header:
            raise table.refusal(at, "is the header again")
        if not line[key].strip():
            raise table.refusal(at, "has no key")
        if strange := re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffd]", "".join(line)):
            raise table.refusal(at, f"holds the character {strange.group()!r}")
    return table


def _check_header(path: Path, header: list[str]) -> None:
    whole = ",".join(header)
    if whole.startswith("version https://git-lfs"):
        raise LedgerError(f"{path} is a pointer of Git LFS and not the table; run: git lfs pull")
    if "key" not in header:
        for separator in ";\t|":
            if "key" in whole.split(separator):
                raise LedgerError(
                    f"{path}, line 1: the columns stand between {separator!r}. Nothing was "
                    "changed. Save the table with commas, or restore it from version control"
                )
        raise LedgerError(f"{path}, line 1 is no header: there is no column `key`. {RESTORE}")
    for name, times in Counter(header).items():
        if times > 1 or not name.strip():
            what = f"has the column {name!r} {times} times" if name.strip() else "has no name"
            raise LedgerError(f"{path}, line 1: the header {what}. {RESTORE}")


def write(table: Table) -> None:
    """Put a table in place of the file, all of it or nothing.

    A link stays a link: the file that it points to is replaced.

    Raises:
        OSError: If that is not possible; the file is as it was.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.header)
    writer.writerows(table.rows)
    target = table.path.resolve()
    new = target.with_suffix(".new")
    new.unlink(missing_ok=True)  # left by a kill; a link is not to be followed
    with new.open("x", encoding="utf-8") as file:
        file.write(out.getvalue())
        file.flush()
        os.fsync(file.fileno())
    new.replace(target)
