"""Text prompts: MVFA's states in templates, MediCLIP's learnable tokens, vectors for encoders without text."""
