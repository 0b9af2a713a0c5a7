"""What `medclipad serve` runs: MONAI Label's interface over HTTP with routes, limits and training of our own."""
