"""The reference codes' own benchmarks of MVFA (on BMAD) and MediCLIP, leakage included: for comparison with the papers.

`medclipad benchmark` runs them; docs/how-to/benchmarks.md says how. For figures of a detector on own cases use
`medclipad evaluate`, which chooses nothing by the test set.
"""
