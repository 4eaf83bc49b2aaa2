"""Defects made on normal images, and the masks that go with them: where, of what, and on which part of the image."""
