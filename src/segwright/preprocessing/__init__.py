"""From raw cases to stored, network-ready cases, and the way back (method 4). Free of torch."""
