"""Figures of several runs on several classes: the arms of an ablation, or classes trained and tested on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medclipad.evaluation.protocols.run import Outcome, test_with_progress
from medclipad.evaluation.protocols.tables import write_table
from medclipad.methods.common.benchmark import BenchmarkProtocol, Figures
from medclipad.volume.progress import Progress


@dataclass(frozen=True)
class Comparison:
    """A table of figures.

    Attributes
    ----------
    name
        Name of its files.
    row, column
        What a row and a column stand for.
    cells
        Figures by row and column.
    records
        What `medclipad.evaluation.protocols.tables.record` returned for each run.
    """

    name: str
    row: str
    column: str = "class"
    cells: dict[tuple[str, str], Figures] = field(default_factory=dict)
    records: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def rows(self) -> list[str]:
        """Names of the rows, in the order in which they came."""
        return list(dict.fromkeys(row for row, _ in self.cells))

    @property
    def columns(self) -> list[str]:
        """Names of the columns, in the order in which they came."""
        return list(dict.fromkeys(column for _, column in self.cells))


def figures_on(
    protocol: BenchmarkProtocol, outcome: Outcome, data: Path, classes: Sequence[str], progress: Progress
) -> dict[str, Figures]:
    """Test the chosen weights of a run on several classes.

    Parameters
    ----------
    protocol
        The experiment, as the run left it.
    outcome
        Result of the run, from which the figures of its own class are taken.
    data
        Folder of the benchmark's pictures.
    classes
        Classes to test on.
    progress
        Called while pictures are checked and tested.

    Returns
    -------
    dict of str to Figures
        Figures by class.
    """
    found = {}
    for name in classes:
        if name == protocol.settings.class_name:
            found[name] = outcome.scores.figures
        else:
            protocol.test_on(data, name, progress)
            found[name] = test_with_progress(protocol, f"test on {name}", progress).figures
    return found


def write_comparison(folder: Path, comparison: Comparison) -> None:
    """Write the cells as NAME.csv, and cells and records as NAME.json.

    Raises
    ------
    TrainingError
        If a file cannot be written.
    """
    row, column = (heading.replace(" ", "_") for heading in (comparison.row, comparison.column))
    cells = [{row: of[0], column: of[1], **figures._asdict()} for of, figures in comparison.cells.items()]
    content = {"cells": cells, "runs": comparison.records}
    write_table(folder / comparison.name, (row, column, *Figures._fields), cells, content)
