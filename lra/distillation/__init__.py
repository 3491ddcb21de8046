"""What the student minimises: the objective, terms in addition to the distance of logits, and curricula."""
