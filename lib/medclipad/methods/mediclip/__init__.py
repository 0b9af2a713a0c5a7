"""MediCLIP (Zhang et al., MICCAI 2024): learnable prompts and adapters, trained on synthetic anomalies."""
