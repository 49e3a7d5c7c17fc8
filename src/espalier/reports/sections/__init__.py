"""The sections of the reports."""
