"""Reading and writing image files: pixels and geometry, one backend a family of formats (method 1.3)."""
