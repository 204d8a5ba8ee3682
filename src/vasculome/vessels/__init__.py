"""Vessels in images: normalize, enhance, label, thin, and measure how dense they are."""
