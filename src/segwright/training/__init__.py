"""From stored cases, a split and a train slice to weights (method 5, 6, 8, 9). Imports nothing: parts need no torch."""
