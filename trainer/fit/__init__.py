"""Fitting: vocabulary, masked-word training, fine-tuning, checkpoints."""
