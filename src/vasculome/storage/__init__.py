"""The only place that writes files: images, arrays, tables, and the record of what is done."""
