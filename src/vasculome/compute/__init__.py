"""Where and how tiles are computed: workers, the resumable map, memory and devices."""
