"""How good it is: segmentations, localizations and tracks against the truth."""
