"""Planning: from a dataset's fingerprint to the plans, in closed form (method 3). Needs no network and no torch."""
