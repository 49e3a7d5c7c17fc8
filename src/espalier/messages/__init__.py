"""Statements as codes with values, and the texts of the reports in two languages."""
