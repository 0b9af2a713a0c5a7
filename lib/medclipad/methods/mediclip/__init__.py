"""MediCLIP (Zhang et al., MICCAI 2024): learnable prompts and adapters, trained on synthetic anomalies."""

from medclipad.methods.mediclip.model import MediCLIP, MediCLIPOptions

__all__ = ["MediCLIP", "MediCLIPOptions"]
