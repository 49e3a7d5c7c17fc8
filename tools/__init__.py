"""Scripts that generate documentation and schemas, and scripts that compare two runs. Not part of the wheel."""
