"""Hyper-parameter search that never sees the test split."""
