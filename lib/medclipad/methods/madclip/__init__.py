"""MadCLIP: two sets of adapters, for normal and abnormal, and learned prompts (Shiri et al., MICCAI 2025)."""
