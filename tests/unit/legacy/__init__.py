"""Tests of the import of results made elsewhere."""
