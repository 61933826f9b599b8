"""Matrix products with an own blocked kernel, or through the fastest library routine."""
