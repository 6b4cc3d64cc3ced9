"""Unit tests mirror the modules; integration tests use real services; properties hold for any history."""
