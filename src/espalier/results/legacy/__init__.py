"""Legacy results: `scan` reads the folder names, `read` reads the JSON files, `table` builds a data frame."""
