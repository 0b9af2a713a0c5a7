"""The program that ctest runs: a module in the harness, and a unittest script of it if there is one.

python run_module_test.py MODULE.py [SCRIPT.py]
"""

from __future__ import annotations

import logging
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))


def main(module_path: Path, script: Path | None) -> bool:
    """Load, enter and leave a module, with its test cases between; return whether all went well.

    Without test cases it is loaded once more without a main window, as in Slicer's generic tests.
    """
    import harness

    harness.start()
    from harness.application import load_file
    from harness.problems import problems

    passed = True
    with problems.watched():
        _, widget = harness.load(module_path)
        if script is not None:
            suite = unittest.defaultTestLoader.loadTestsFromModule(load_file(script.stem, script))
            if not suite.countTestCases():
                raise SystemExit(f"{script.name} holds no test")
            passed = unittest.TextTestRunner(verbosity=2).run(suite).wasSuccessful()
        harness.unload(widget)
        if script is None:  # Slicer's generic test has no main window
            with harness.without_main_window():
                harness.unload(harness.load(module_path)[1])
    return passed


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    scripts = [Path(argument).resolve() for argument in sys.argv[1:]]
    sys.exit(0 if main(scripts[0], scripts[1] if len(scripts) > 1 else None) else 1)
