"""Drawn data whose labels are true by construction: faces, cattle, mice, RAF-CE."""
