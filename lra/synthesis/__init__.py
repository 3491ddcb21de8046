"""Making samples without data: sources, the losses that train them, and augmentation."""
