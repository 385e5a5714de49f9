"""Review pages: read in a browser what was flagged, and say which flags were right."""
