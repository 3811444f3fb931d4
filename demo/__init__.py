"""What `make demo` runs: real data in, scored customers out. Not part of the distribution."""
