"""MVFA (Huang et al., CVPR 2024): residual adapters in a frozen encoder, prompts, and a memory of normal tokens."""
