"""Any picture or video a user can hand over -> pixels as CLIP and BLIP-2 expect them.

Knows files, arrays, images and frames; knows no models. Nothing is downloaded. Pillow and PyAV, the
extra `media`, are imported when they are first needed.
"""

from llmasr.media.images import ImageSource, load_image
from llmasr.media.source import FileSource, MediaError
from llmasr.media.videos import DamagedVideoWarning, VideoFrames, load_video

__all__ = [
    "DamagedVideoWarning",
    "FileSource",
    "ImageSource",
    "MediaError",
    "VideoFrames",
    "load_image",
    "load_video",
]
