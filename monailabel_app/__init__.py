"""MedCLIPAD as a MONAI Label app: thin adapters from MONAI Label's tasks to medclipad.

`medclipad serve` starts `server.py`; `monailabel start_server --app monailabel_app` loads `main.py` by path.
"""
