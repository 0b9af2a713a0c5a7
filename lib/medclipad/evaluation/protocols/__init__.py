"""The papers' own benchmarks, as the reference codes run them, leakage included: for comparison with the papers.

`medclipad benchmark` runs them; docs/how-to/benchmarks.md says how. For figures of a detector on your own cases use
`medclipad evaluate`, which chooses nothing by the test set.
"""
