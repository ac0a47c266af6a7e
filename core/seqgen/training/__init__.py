"""Training: the same order, mask, inputs and head as decoding."""
