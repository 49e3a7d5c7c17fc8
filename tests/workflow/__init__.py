"""Tests of the workflow, by running it."""
