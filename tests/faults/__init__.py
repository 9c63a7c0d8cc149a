"""Faults: what is killed, filled up, altered or started twice, and that nothing is lost by it."""
