"""What runs jobs: this box's own model, and the cloud."""
