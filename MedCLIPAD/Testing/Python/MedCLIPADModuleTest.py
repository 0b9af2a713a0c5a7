"""Runs the module's self test (class MedCLIPADTest of MedCLIPAD.py) inside Slicer, through ctest."""

import unittest

import slicer


class MedCLIPADModuleTest(unittest.TestCase):
    def test_self_test(self):
        import MedCLIPAD

        self.assertIsNotNone(slicer.modules.medclipad)
        MedCLIPAD.MedCLIPADTest().runTest()
