"""What `medclipad serve` runs: MONAI Label's interface with our own routes, limits and training."""
