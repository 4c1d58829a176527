"""Sans-I/O pieces of protocols that several rooms speak. Knows only the errors."""
