"""Names of the volumes that a Workspace reads from and writes to, as they are mounted below ``/mnt``."""

INPUT_VOLUME, OUTPUT_VOLUME, WEIGHTS_VOLUME = "input", "output", "weights"
