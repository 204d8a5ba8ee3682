"""Simulated vessels, microscope images and ultrasound acquisitions, with their truth."""
