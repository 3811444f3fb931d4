"""Releasing a model: package, prove parity, gate, register and promote."""
