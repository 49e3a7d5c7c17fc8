"""Tests of packed scoring."""
