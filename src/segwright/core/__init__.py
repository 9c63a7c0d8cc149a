"""The words every other room uses: datasets, plans, geometry, settings, files and errors."""
