"""The networks, as torch modules: tensors in, tensors out."""
