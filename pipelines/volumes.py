"""The volumes that a Workspace reads from and writes to, by name, and where the steps look for each."""

from steps.contract import IMAGE_FOLDER, INPUT_FOLDER, OUTPUT_FOLDER

INPUT_VOLUME, OUTPUT_VOLUME, WEIGHTS_VOLUME = "input", "output", "weights"
MOUNTS = {INPUT_VOLUME: INPUT_FOLDER, OUTPUT_VOLUME: OUTPUT_FOLDER, WEIGHTS_VOLUME: IMAGE_FOLDER}
