"""The face of a run: pictures, the page of a sample and the table of all samples."""
