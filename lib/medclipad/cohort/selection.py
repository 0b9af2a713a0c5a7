"""Scans of an earlier run, chosen by a condition on the columns of its table."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from medclipad.cohort.listing import Scan, state_of
from medclipad.cohort.table import SCHEMA
from medclipad.errors import MedCLIPADError

COLUMNS = tuple(field.name for field in SCHEMA if not pa.types.is_nested(field.type))
"""Columns that a condition may name: those that hold one value for each scan."""
_ALLOWED = (
    *(ast.Expression, ast.Name, ast.Load, ast.Constant, ast.List, ast.Tuple),
    *(ast.Compare, ast.cmpop, ast.BoolOp, ast.boolop, ast.BinOp, ast.operator, ast.UnaryOp, ast.unaryop),
)  # neither calls nor attributes: a condition that comes from elsewhere compares, and does nothing


@dataclass(frozen=True)
class Selection:
    """Scans that meet a condition, and those of them that are not used.

    Attributes
    ----------
    scans
        The scans, in the order of their names; `medclipad.fit` takes them as `normal` and `calibrate_on`.
    failed
        How many more the condition names that the run could not analyse.
    lesioned
        How many more have a lesion, by the mask that the run knew.
    """

    scans: list[Scan]
    failed: int
    lesioned: int

    @property
    def note(self) -> str:
        """What was chosen, in a sentence."""
        counts = [(self.failed, "that could not be analysed"), (self.lesioned, "whose masks show a lesion")]
        without = " and ".join(f"{count} {which}" for count, which in counts if count)
        return f"{len(self.scans)} scans chosen{f', without {without}' if without else ''}."


def select_scans(table: str | Path, where: str) -> Selection:
    """Return the scans of a cohort's table that meet a condition; no volume is read.

    Parameters
    ----------
    table
        A `cohort.parquet`.
    where
        Condition on the columns of `COLUMNS`, such as "p_value > 0.2 and group == 'control'". Where a value is not
        known, the scan does not meet it.

    Raises
    ------
    MedCLIPADError
        If the table cannot be read, the condition is none, no scan meets it, or files are missing, changed since, or
        in an archive.

    Examples
    --------
    >>> import medclipad as mc
    >>> chosen = select_scans("results/cohort.parquet", "group == 'control'")  # doctest: +SKIP
    >>> detector = mc.fit(normal=chosen.scans)  # doctest: +SKIP
    """
    rows = _read(Path(table).expanduser())
    chosen: pd.DataFrame = rows.loc[_meets(rows, where)]
    analysed: pd.DataFrame = chosen.loc[chosen["status"] == "done"]
    kept: pd.DataFrame = analysed.loc[~analysed["abnormal"].fillna(False)]
    selection = Selection(
        [_scan(row) for row in kept.sort_values("name").to_dict("records")],
        len(chosen) - len(analysed),
        len(analysed) - len(kept),
    )
    if not selection.scans:
        raise MedCLIPADError(f'None of the {len(rows)} scans of {table} can be used where "{where}": {selection.note}')
    _require_same_files(selection.scans)
    return selection


def _read(table: Path) -> pd.DataFrame:
    """Return the columns that a condition may name."""
    try:
        found = pq.ParquetFile(table).read(list(COLUMNS))
    except (OSError, pa.ArrowException) as error:
        raise MedCLIPADError(f"{table} cannot be read as a Parquet table: check the path.") from error
    if missing := [name for name in COLUMNS if name not in found.column_names]:
        raise MedCLIPADError(f"{table} is no table of `medclipad cohort`: it lacks the column {missing[0]}.")
    return found.to_pandas(types_mapper={pa.bool_(): pd.BooleanDtype()}.get)


def _meets(rows: pd.DataFrame, where: str) -> pd.Series:
    """Return which rows meet a condition."""
    try:
        parsed = list(ast.walk(ast.parse(where.strip(), mode="eval")))
    except (SyntaxError, ValueError) as error:
        raise _no_condition(where, "it is not complete, or misspelled") from error
    for node in parsed:
        if isinstance(node, ast.Name) and node.id not in COLUMNS:
            raise _no_condition(where, f"there is no column {node.id} among {', '.join(COLUMNS)}")
        if not isinstance(node, _ALLOWED):
            raise _no_condition(where, "it may compare columns with values and join that with and, or, not")
    try:
        met = rows.eval(where.strip(), engine="python", local_dict={}, global_dict={})
    except Exception as error:  # pandas raises many kinds, and more with each version
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise _no_condition(where, reason) from error
    if not isinstance(met, pd.Series) or not pd.api.types.is_bool_dtype(met.dtype):
        raise _no_condition(where, "it says neither yes nor no of a scan")
    return met.fillna(False).astype(bool)


def _no_condition(where: str, reason: str) -> MedCLIPADError:
    return MedCLIPADError(
        f'"{where}" is no condition on a cohort\'s table ({reason}): write one such as "p_value > 0.2 and group == '
        "'control'\"."
    )


def _scan(row: dict[str, str]) -> Scan:
    series = row["series"] if isinstance(row["series"], str) else None
    return Scan(row["name"], row["source"], series=series, group=row["group"], state=row["state"])


def _require_same_files(scans: list[Scan]) -> None:
    """Raise MedCLIPADError if a scan is not what was analysed."""
    remote = [scan for scan in scans if scan.source.startswith(("http://", "https://"))]
    if remote:
        raise MedCLIPADError(
            f"{len(remote)} of the scans, such as {remote[0].name}, are in an archive: copy them to a folder, and run "
            "the cohort on that."
        )
    others = [scan for scan in scans if state_of(Path(scan.source)) != scan.state]
    if others:
        raise MedCLIPADError(
            f"{len(others)} of {len(scans)} scans are missing or have changed since the table was written, such as "
            f"{others[0].source}: run the cohort again."
        )
