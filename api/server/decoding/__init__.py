"""From an uploaded file to pixels: what kind of file, its header, the decoder, its colours; in a process of its own."""
