"""From audio to text: cutting, batching, search, word times."""
