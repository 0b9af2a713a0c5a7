"""Client of a MedCLIPAD server.

It needs requests and the standard library only, on Python 3.9 or later. The distribution medclipad-client carries it
without the rest of the package.

Examples
--------
>>> from medclipad.client import Client
>>> client = Client("http://127.0.0.1:8000")
>>> client.train("mediclip", {"normal": ["healthy_1", "healthy_2"]})  # doctest: +SKIP
>>> client.wait_trained(print)  # doctest: +SKIP
>>> path, scores = client.infer("mediclip", "case_7", {"result": "map"})  # doctest: +SKIP
"""

from medclipad.client.client import Client
from medclipad.client.failures import ServerError

__all__ = ["Client", "ServerError"]
