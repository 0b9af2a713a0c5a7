"""What `medclipad cohort` runs: a detector over thousands of volumes on Ray, as one table, one page and a map each."""
