"""Parts of the MedCLIPAD module of 3D Slicer.

They import nothing of the medclipad package: they speak HTTP with the server.
"""
