"""From weights and a case to logits, label maps and probabilities. Imports nothing: some modules here need no torch."""
