"""Everything a run produced, as one self-contained HTML page."""
