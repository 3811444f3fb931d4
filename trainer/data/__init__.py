"""Training data: export from the warehouse, snapshots on disk, out-of-time splits."""
