"""Faces in photos.

``centerface``   the detector's network; ``detection``: the faces of a photo, in two passes
``alignment``    the frame that faces are cut out in; ``quality``: whether a photo is good enough
``recogniser``   the small face encoder that ships with a bundle; ``onnx_recogniser``: any other one, by its path
"""
