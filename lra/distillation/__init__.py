"""What the student minimises: the objective, terms beside the distance of logits, curricula."""
