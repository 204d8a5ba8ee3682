"""Tiles to one volume."""
