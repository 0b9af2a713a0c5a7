"""MVFA (Huang et al., CVPR 2024): residual adapters in a frozen encoder, prompts, and a memory of normal tokens."""

from medclipad.methods.mvfa.model import MVFA, Evidence, Features, MVFAOptions, combine, unit_range

__all__ = ["MVFA", "Evidence", "Features", "MVFAOptions", "combine", "unit_range"]
