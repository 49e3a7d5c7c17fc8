"""Tests of the tools that are not part of the library."""
