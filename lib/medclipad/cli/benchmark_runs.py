"""What `medclipad benchmark` runs: an experiment for each class, an ablation, or a test of each class on all."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medclipad.cli.terminal import progress_bar
from medclipad.errors import MedCLIPADError
from medclipad.evaluation.protocols.comparison import Comparison, figures_on
from medclipad.evaluation.protocols.run import STATE, Outcome, test_checkpoint, train_and_test
from medclipad.evaluation.protocols.tables import write_run
from medclipad.methods.common.benchmark import BenchmarkSuite, Figures
from medclipad.methods.common.benchmark_settings import Ablation, Settings

Record = dict[str, Any]
"""Everything that is known about a run; see `medclipad.evaluation.protocols.tables.record`."""


@dataclass(frozen=True)
class Runs:
    """Experiments on some classes of a benchmark. What is finished in their folders is not trained again.

    Attributes
    ----------
    suite
        The benchmark.
    data
        Folder of its pictures.
    seeds
        Folder that names the few-shot pictures; None for its default place.
    out
        Folder for the results.
    classes
        Classes or data sets.
    settings
        Settings of the runs, apart from the class.
    """

    suite: BenchmarkSuite
    data: Path
    seeds: Path | None
    out: Path
    classes: Sequence[str]
    settings: Settings

    def whole(self, checkpoint: Mapping[str, Any] | None = None) -> list[Record]:
        """Run the experiment on each class, or test a checkpoint; return the records."""
        return [self._run(name, self.settings, self.out, checkpoint)[0] for name in self.classes]

    def ablations(self, name: str) -> dict[str, Ablation]:
        """Return an ablation for each class.

        Raises
        ------
        MedCLIPADError
            If there is none of that name, or it has nothing to compare; the message lists those that exist.
        """
        found = {}
        for class_name in self.classes:
            settings = replace(self.settings, class_name=class_name)
            known = self.suite.ablations(self.data, settings, self.seeds)
            if name not in known:
                kind = f"{class_name} zero-shot" if not settings.shots else class_name
                choice = f"choose one of {', '.join(known)}" if known else "leave --ablate out"
                raise MedCLIPADError(f'{self.suite.name} has no ablation "{name}" on {kind}: {choice}.')
            if not known[name].arms:
                raise MedCLIPADError(f"There is nothing to compare on {class_name}: not {known[name].left_out}.")
            found[class_name] = known[name]
        return found

    def ablate(self, name: str, ablations: Mapping[str, Ablation]) -> Comparison:
        """Run the arms of an ablation, that of the whole method in the folder of the experiment itself."""
        comparison = Comparison(name, name)
        for class_name, ablation in ablations.items():
            for arm in ablation.arms:
                settings = arm.settings(self.settings)
                folder = self.out if settings == self.settings else self.out / name / arm.folder
                record, figures = self._run(class_name, settings, folder, title=arm.name)
                comparison.cells[arm.name, class_name] = figures[class_name]
                comparison.records.append({**record, "arm": arm.name})
        return comparison

    def across(self) -> Comparison:
        """Train on each class and test on all; zero-shot, train on the others of each class and test on it."""
        comparison = Comparison("across", "trained on", "tested on")
        for name in self.classes:
            others = self.settings.shots == 0
            record, figures = self._run(name, self.settings, self.out, tested=() if others else self.classes)
            for tested, value in figures.items():
                comparison.cells["the other classes" if others else name, tested] = value
            comparison.records.append(record)
        return comparison

    def _run(
        self,
        class_name: str,
        settings: Settings,
        out: Path,
        checkpoint: Mapping[str, Any] | None = None,
        title: str = "",
        tested: Sequence[str] = (),
    ) -> tuple[Record, dict[str, Figures]]:
        """Run one experiment; return its record, and the figures of its class and of those it is `tested` on."""
        folder = out / class_name if len(self.classes) > 1 else out
        title = f"{class_name}, {title}" if title else class_name
        with progress_bar(title) as progress:
            settings = replace(settings, class_name=class_name)
            experiment = self.suite.make(self.data, settings, settings.shots == 0, self.seeds, progress)
            if checkpoint is not None:
                outcome: Outcome = test_checkpoint(experiment, checkpoint, progress)
            else:
                if (folder / STATE).exists():
                    print(f"{title}: going on with the run in {folder}.", file=sys.stderr)
                outcome = train_and_test(experiment, folder, progress)
            record = write_run(folder, self.suite, experiment, outcome)
            return record, figures_on(experiment, outcome, self.data, tested or [class_name], progress)
