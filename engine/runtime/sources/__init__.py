"""Frames in: pictures, folders, videos, cameras, network streams."""
