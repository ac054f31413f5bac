"""How a bundle behaves: whether it knows a person or copies a photo, whether seeds vary, whether words are followed."""
