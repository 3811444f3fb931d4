"""Contracts shared by warehouse, trainer and scorer: standard library and pyarrow only."""
