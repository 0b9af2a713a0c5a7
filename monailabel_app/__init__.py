"""MedCLIPAD as a MONAI Label app: thin adapters from MONAI Label's tasks to `medclipad.server`.

`medclipad serve` and `monailabel start_server --app monailabel_app` load `main.py` by its path.
"""
