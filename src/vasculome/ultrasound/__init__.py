"""Ultrasound localization microscopy: from IQ frames to tracks and maps, arrays in, arrays out."""
