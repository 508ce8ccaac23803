"""The scripts behind every number in the documentation; each prints a table and can write JSON."""
