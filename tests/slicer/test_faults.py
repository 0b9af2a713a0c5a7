"""Each fault that faults.py seeds into the module is noticed by the test named with it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.slicer.faults import FAULTS, broken, run


def test_every_fault_can_still_be_seeded(tmp_path):
    assert len(FAULTS) >= 15
    for number, fault in enumerate(FAULTS):
        (tmp_path / str(number)).mkdir()
        broken(fault, tmp_path / str(number))
        file, _, name = fault.test.partition("::")
        source = (Path(__file__).parent / file).read_text(encoding="utf-8")
        assert f"def {name.partition('[')[0]}(" in source, fault.test


@pytest.mark.long
def test_without_a_fault_all_pass(slicer_app):
    passed, said = run(sorted({fault.test for fault in FAULTS}))
    assert passed, said


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_the_fault_is_noticed(slicer_app, fault):
    assert not run([fault.test], fault)[0]
