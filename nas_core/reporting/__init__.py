"""Records of a run turned into figures, one HTML page and a table for the terminal; nothing is read or written."""
