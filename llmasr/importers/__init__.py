"""Language models from folders of others, in whatever layout they were published."""
