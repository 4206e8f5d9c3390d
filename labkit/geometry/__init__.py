"""Geometry of point clouds: tensors in, results out; knows nothing of data or training."""

from labkit.geometry.neighbors import knn as knn
from labkit.geometry.neighbors import sphere_distance as sphere_distance

__all__ = ["knn", "sphere_distance"]
