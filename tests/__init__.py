"""Tests: unit (seconds), workflow (minutes)."""
