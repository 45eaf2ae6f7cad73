"""Whole models: interfaces, language models, their composition and their checkpoints."""
