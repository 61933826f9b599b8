"""A soak test of the judge: many candidates of every kind in a row, and what they leave behind."""
