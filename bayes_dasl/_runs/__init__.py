"""Long work: steps kept on disk, files written whole or not at all, progress."""
