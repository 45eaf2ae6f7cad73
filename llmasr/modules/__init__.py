"""Networks that know no files and no configuration objects."""
