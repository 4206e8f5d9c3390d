"""Races of labkit against its peers; each script prints a table of ratios. Not installed with the package."""
