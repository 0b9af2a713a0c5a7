"""What the MedCLIPAD module of 3D Slicer is made of. It imports nothing of the medclipad package: it speaks HTTP."""
