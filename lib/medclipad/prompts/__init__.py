"""Text prompts: MVFA's states in templates, MediCLIP's learnable tokens, and learned vectors for encoders without text."""
