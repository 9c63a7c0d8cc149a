"""U-Nets by name: architecture numbers in, a torch module out (method 7)."""
