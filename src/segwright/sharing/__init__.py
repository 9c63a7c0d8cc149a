"""Model folders and archives: made, opened safely, and used to predict."""
