"""Generate outdoor scenes with all seven classes and exact labels at any size."""

from .dataset import SceneFiles, load_scenes, split_folder
from .rendering import Scene, check_size, render_scene


__all__ = ["Scene", "SceneFiles", "check_size", "load_scenes", "render_scene", "split_folder"]
