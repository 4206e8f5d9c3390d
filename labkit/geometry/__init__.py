"""Geometry of point clouds: tensors in, results out; knows nothing of data or training."""

from labkit.geometry.neighbors import chord_distances, knn, sphere_distances

__all__ = ["chord_distances", "knn", "sphere_distances"]
