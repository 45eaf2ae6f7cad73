"""Training data: manifests to lhotse cuts, stored features, augmentation, batches."""
