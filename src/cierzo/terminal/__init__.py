"""The terminal face: one file a command, and what they share. It shows events; it knows no engine."""
