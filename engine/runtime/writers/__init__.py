"""Results out: tables, annotated video, timeline, summary."""
