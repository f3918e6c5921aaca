"""Training in stages, on transformers' Trainer."""
