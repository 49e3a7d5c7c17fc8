"""Import of results made elsewhere: `scan` reads names of folders, `read` their JSON files, `table` makes a frame."""
