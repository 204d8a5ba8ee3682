"""Raw files in, lazily: microscopy volumes and ultrasound IQ."""
