"""Run the self test, MedCLIPADTest of MedCLIPAD.py, in Slicer through ctest."""

import unittest

import slicer


class MedCLIPADModuleTest(unittest.TestCase):
    """The module's self test as a unit test."""

    def test_self_test(self) -> None:
        """Run the self test."""
        import MedCLIPAD

        self.assertIsNotNone(slicer.modules.medclipad)
        MedCLIPAD.MedCLIPADTest().runTest()
