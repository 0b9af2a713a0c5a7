"""The sample study: simulated brain MR volumes, normal and abnormal, made from the ICBM 152 template."""
