"""What a photo must be like to be personalized from: faces found, the face chosen, reasons, warnings."""
