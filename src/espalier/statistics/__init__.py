"""Statistics of the results, as pure functions on arrays. docs/statistics.md explains each definition."""
