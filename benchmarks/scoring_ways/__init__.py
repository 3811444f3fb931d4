"""Ways of scoring the same tokens with the same weights, and what they are measured by."""
