"""Intervals of figures over patients: a bootstrap that draws patients, with all of their scans."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000  # as LUNA16
CONFIDENCE = 0.95
MIN_PATIENTS = 5  # with fewer there is no interval: of a share of 0.7, it would cover the truth in less than 84 %
FEW_PATIENTS = 20  # with fewer it covers about 90 % (of 0.5 and 0.7; 83 % of 0.9 with 10), which is said
RULE = (
    f"95 % intervals are percentiles of {RESAMPLES} bootstrap resamples of patients, drawn with all their scans, "
    f"normal and abnormal patients apart, and given for at least {MIN_PATIENTS} patients; where all resamples agree on "
    "0 or 1, the other end is that of Clopper and Pearson for as many patients"
)


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval over patients.

    Attributes
    ----------
    value
        The figure; None where it is not defined.
    low, high
        Ends of the interval; None where there are too few patients.
    """

    value: float | None
    low: float | None = None
    high: float | None = None


class PatientBootstrap:
    """Resamples of cases by patient, to compute a figure on.

    Patients with an abnormal scan and those without are drawn apart, so that each resample has as many of both.

    Parameters
    ----------
    patients
        Patient of each of n cases.
    abnormal
        bool (n,), which cases are abnormal.
    seed
        Of the resamples.

    Attributes
    ----------
    weights
        int (1 + resamples, n), how often each case counts; the first row counts each once.
    """

    def __init__(self, patients: Sequence[Hashable], abnormal: Sequence[bool], seed: int = 0) -> None:
        numbers = {patient: number for number, patient in enumerate(dict.fromkeys(patients))}
        self._patient = np.array([numbers[patient] for patient in patients], dtype=int)
        sick = np.zeros(len(numbers), dtype=bool)
        sick[self._patient[np.asarray(abnormal, dtype=bool)]] = True
        rng = np.random.default_rng(seed)
        drawn = np.ones((1 + RESAMPLES, len(numbers)), dtype=int)
        for group in (np.flatnonzero(sick), np.flatnonzero(~sick)):
            if len(group):
                drawn[1:, group] = rng.multinomial(len(group), np.full(len(group), 1 / len(group)), RESAMPLES)
        self.weights = drawn[:, self._patient]

    def patients(self, cases: np.ndarray | slice = slice(None)) -> int:
        """Return the number of patients of some cases: bool (n,), or all."""
        return len(np.unique(self._patient[cases]))

    def ratio(self, amounts: np.ndarray, totals: np.ndarray) -> np.ndarray:
        """Return the sum of amounts over the sum of totals, both (n,), for each row of `weights`; nan without any."""
        above, below = self.weights @ np.asarray(amounts, float), self.weights @ np.asarray(totals, float)
        return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)

    def estimate(
        self,
        values: np.ndarray,
        cases: np.ndarray | slice = slice(None),
        ends: tuple[float | None, float | None] = (0, 1),
    ) -> Estimate:
        """Return a figure with its interval.

        Parameters
        ----------
        values
            (1 + resamples,), the figure for each row of `weights`; nan where it is not defined.
        cases
            bool (n,), the cases that it is about; their patients must suffice for an interval.
        ends
            Least and greatest value that the figure can have, if 0 and 1.
        """
        if not np.isfinite(values[0]):
            return Estimate(None)
        value, n = float(values[0]), self.patients(cases)
        drawn = values[1:][np.isfinite(values[1:])]
        if n < MIN_PATIENTS or not len(drawn):
            return Estimate(value)
        tail = (1 - CONFIDENCE) / 2
        low, high = map(float, np.quantile(drawn, (tail, 1 - tail)))
        if low == high == ends[0]:
            high = 1 - tail ** (1 / n)
        elif low == high == ends[1]:
            low = tail ** (1 / n)
        return Estimate(value, low, high)
